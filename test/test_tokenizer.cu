// test_tokenizer.cu: tokenizer/bpe.h and tokenizer/unicode.h against Hugging Face `tokenizers`, whose ids are in
// test/golden/tokenizer (scripts/golden/make_golden_tokenizer.py), and against published ids of real texts; data/sha256.h
// against the test vectors of FIPS 180-4.
#include <chrono>
#include <fstream>
#include <map>
#include <string>
#include <vector>
#include "../data/sha256.h"
#include "../tokenizer/bpe.h"
#include "temp.h"
#include "test.h"

static const std::string golden = "test/golden/tokenizer";

static std::string ids_sha256(const std::vector<int>& ids) { return sha256_hex(ids.data(), ids.size() * sizeof(int)); }

static std::string ids_text(const std::vector<int>& ids) {
    std::string s;
    for (int id : ids) s += std::to_string(id) + " ";
    return s;
}

// The ids of one text, compared; a difference is reported with the text.
static void check_ids(const Tokenizer& t, const std::string& text, const Json& expected) {
    std::vector<int> ids;
    for (const Json& id : expected.array) ids.push_back((int)id.integer);
    std::vector<int> found = tokenizer_encode(t, text);
    if (found == ids) return;
    fail("%s of %s: expected %s, found %s", json_quote(text).substr(0, 300).c_str(), t.source.c_str(),
         ids_text(ids).c_str(), ids_text(found).c_str());
}

// A copy of a golden folder in `temp`, with one text in one file replaced.
static void copy_golden(const TempFolder& temp, const std::string& folder, const std::string& file = "", const std::string& from = "",
                        const std::string& to = "") {
    for (const auto& entry : std::filesystem::directory_iterator(golden + "/" + folder))
        write_bytes(temp / entry.path().filename().string(), read_bytes(entry.path().string()));
    if (file.empty()) return;
    std::string bytes = read_bytes(temp / file);
    size_t at = bytes.find(from);
    if (at == std::string::npos) fail("%s isn't in %s/%s", from.c_str(), folder.c_str(), file.c_str());
    write_bytes(temp / file, bytes.replace(at, from.size(), to));
}

static double seconds_since(std::chrono::steady_clock::time_point start) {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

TEST(sha256_vectors) {
    CHECK_EQ(sha256_hex("", 0), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    CHECK_EQ(sha256_hex("abc", 3), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    const std::string two = "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
    CHECK_EQ(sha256_hex(two.data(), two.size()), "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
    const std::string million(1000000, 'a');
    const std::string expected = "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0";
    CHECK_EQ(sha256_hex(million.data(), million.size()), expected);
    Sha256 hash;  // in pieces of every length from 0 up
    size_t done = 0;
    for (size_t n = 0; done < million.size(); done += n, n++) {
        n = std::min(n, million.size() - done);
        sha256_update(hash, million.data() + done, n);
    }
    CHECK_EQ(sha256_finish(hash), expected);
}

TEST(nfc_examples) {
    auto nfc = [](const std::string& s) { return unicode_nfc(s.data(), s.size()); };
    CHECK_EQ(nfc(""), "");
    CHECK_EQ(nfc("plain"), "plain");
    CHECK_EQ(nfc("e\u0301"), "\u00e9");
    CHECK_EQ(nfc("x e\u0301 y e\u0301"), "x \u00e9 y \u00e9");
    CHECK_EQ(nfc("\u1e0b\u0323"), "\u1e0d\u0307");              // d with dot above, dot below: reordered
    CHECK_EQ(nfc("a\u0315\u0300\u05ae\u0300b"), "\u00e0\u05ae\u0300\u0315b");  // classes 232 230 228 230
    CHECK_EQ(nfc("\u212b\u2126"), "\u00c5\u03a9");              // singletons
    CHECK_EQ(nfc("\u0958"), "\u0915\u093c");                    // excluded from composition
    CHECK_EQ(nfc("\u1112\u1161\u11ab\u1100\u1173\u11af"), "\ud55c\uae00");  // Hangul
    CHECK_EQ(nfc("\uac00\u11a7"), "\uac00\u11a7");              // not a trailing consonant
    CHECK_EQ(nfc("\u0301"), "\u0301");
}

TEST(classes_of_code_points) {
    const UnicodeData& u = unicode_data();
    size_t letters = 0, numbers = 0, spaces = 0;
    for (uint8_t flags : u.flags) {
        letters += (flags & UNICODE_LETTER) != 0;
        numbers += (flags & UNICODE_NUMBER) != 0;
        spaces += (flags & UNICODE_SPACE) != 0;
    }
    CHECK_EQ(letters, 141028u);  // so many code points match \p{L}, \p{N} and \s in Hugging Face tokenizers 0.23.3
    CHECK_EQ(numbers, 1911u);
    CHECK_EQ(spaces, 25u);
    CHECK_EQ((int)unicode_fold(0x17F), (int)'s');
    CHECK_EQ((int)unicode_fold(0x212A), (int)'k');
    CHECK_EQ((int)unicode_fold('Z'), (int)'z');
    CHECK_EQ((int)unicode_fold(0xC9), 0xC9);
}

TEST(golden_ids) {
    const Json cases = json_parse_file(golden + "/texts.json");
    const std::vector<Json>& texts = json_array(cases, "texts", "texts.json");
    CHECK(texts.size() >= 150);
    for (const char* folder : {"qwen", "pair", "llama"}) {
        const Tokenizer t = tokenizer_load(golden + "/" + folder);
        const char* key = std::string(folder) == "llama" ? "llama" : "qwen";
        const std::vector<Json>& ids = json_array(cases, key, "texts.json");
        CHECK_EQ(ids.size(), texts.size());
        for (size_t i = 0; i < texts.size(); i++) {
            const std::string& text = texts[i].string;
            check_ids(t, text, ids[i]);
            // Added tokens are cut out before NFC, so a text of them may not be NFC as a whole.
            std::string decoded = tokenizer_decode(t, tokenizer_encode(t, text));
            if (!t.nfc) CHECK_EQ(decoded, text);
            CHECK_EQ(unicode_nfc(decoded.data(), decoded.size()), unicode_nfc(text.data(), text.size()));
        }
    }
}

// GPT-2's expression, with and without digits cut out, on vocabularies that lack some single bytes.
TEST(golden_ids_of_gpt2_like_tokenizers) {
    const Json cases = json_parse_file(golden + "/texts.json");
    const std::vector<Json>& texts = json_array(cases, "texts", "texts.json");
    const struct {
        const char *key, *folder, *from, *to;
    } variants[] = {{"smollm", "smollm", "\"individual_digits\":true", "\"individual_digits\":true"},
                    {"smollm_runs", "smollm", "\"individual_digits\":true", "\"individual_digits\":false"},
                    {"gpt2", "gpt2", "\"fuse_unk\":true", "\"fuse_unk\":true"},
                    {"gpt2_each", "gpt2", "\"fuse_unk\":true", "\"fuse_unk\":false"}};
    for (const auto& v : variants) {
        TempFolder temp;
        copy_golden(temp, v.folder, "tokenizer.json", v.from, v.to);
        const Tokenizer t = tokenizer_load(temp.path);
        const std::vector<Json>& ids = json_array(cases, v.key, "texts.json");
        CHECK_EQ(ids.size(), texts.size());
        for (size_t i = 0; i < texts.size(); i++) check_ids(t, texts[i].string, ids[i]);
    }
    const Tokenizer t = tokenizer_load(golden + "/smollm");
    CHECK_EQ(t.byte_id[(unsigned char)'j'], -1);
    CHECK_EQ(tokenizer_decode(t, tokenizer_encode(t, "a j#a")), "a a");
    TempFolder temp;
    copy_golden(temp, "gpt2", "tokenizer.json", "\"unk_token\":\"<|endoftext|>\"", "\"unk_token\":\"nowhere\"");
    CHECK_ERROR(tokenizer_load(temp.path), "the model's unk_token \"nowhere\" isn't in the vocabulary");
}

TEST(both_sources_are_one_tokenizer) {
    const Tokenizer a = tokenizer_load(golden + "/qwen"), b = tokenizer_load(golden + "/pair");
    CHECK_EQ(tokenizer_size(a), 984u);
    CHECK(a.bytes == b.bytes);
    CHECK(a.merged == b.merged);
}

TEST(names_of_tokens) {
    const Tokenizer t = tokenizer_load(golden + "/pair");
    const Json vocab = json_parse_file(golden + "/pair/vocab.json");
    CHECK_EQ(tokenizer_id(t, "A"), (int)json_int(vocab, "A", "vocab"));
    CHECK_EQ(tokenizer_id(t, " the"), (int)json_int(vocab, "\u0120the", "vocab"));
    CHECK_EQ(tokenizer_id(t, "\u0120the"), -1);
    CHECK_EQ(tokenizer_id(t, "\xC3"), (int)json_int(vocab, "\u00c3", "vocab"));
    CHECK_EQ(tokenizer_id(t, "<|endoftext|>"), 972);
    CHECK_EQ(tokenizer_id(t, "no such token"), -1);
    CHECK_EQ(tokenizer_id(t, ""), -1);
    CHECK_EQ(tokenizer_decode(t, {972, tokenizer_id(t, " the"), 973}), "<|endoftext|> the<|im_start|>");
    CHECK_EQ(tokenizer_decode(t, {}), "");
    CHECK_ERROR(tokenizer_decode(t, {0, 984}), "id 984, number 1 of 2");
    CHECK_ERROR(tokenizer_decode(t, {-1}), "id -1");
}

// The definition of the merges: the pair of the lowest rank, leftmost first, until there is none.
using Merges = std::vector<std::pair<std::string, std::string>>;
static std::vector<int> merge_naively(const Merges& merges, const std::map<std::string, int>& vocab,
                                      const std::string& piece) {
    std::vector<std::string> tokens;
    for (char c : piece) tokens.push_back(std::string(1, c));
    for (size_t rank = 0; rank < merges.size(); rank++) {
        for (size_t i = 0; i + 1 < tokens.size(); i++) {
            if (tokens[i] != merges[rank].first || tokens[i + 1] != merges[rank].second) continue;
            tokens[i] += tokens[i + 1];
            tokens.erase(tokens.begin() + (long)i + 1);
            rank = SIZE_MAX;  // from the lowest rank again: this token may merge earlier
            break;
        }
    }
    std::vector<int> ids;
    for (const std::string& token : tokens) ids.push_back(vocab.at(token));
    return ids;
}

// Random merges in random order, also such that use what only a later one makes, on random words.
TEST(merges_as_defined) {
    uint64_t state = 1;
    auto random = [&](size_t n) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        return (size_t)((state >> 33) % n);
    };
    const Json golden_vocab = json_parse_file(golden + "/pair/vocab.json");
    for (int round = 0; round < 30; round++) {
        std::map<std::string, int> vocab;
        std::vector<std::string> tokens = {"a", "b", "c", "d"};
        for (const auto& [token, id] : golden_vocab.object) {
            std::string bytes;
            if (gpt2_bytes(token, bytes) && bytes.size() == 1) vocab.emplace(token, (int)vocab.size());
        }
        CHECK_EQ(vocab.size(), 256u);
        Merges merges;
        for (int i = 0; i < 60; i++) {
            std::pair<std::string, std::string> merge = {tokens[random(tokens.size())], tokens[random(tokens.size())]};
            std::string token = merge.first + merge.second;
            if (token.size() > 12 || std::count(merges.begin(), merges.end(), merge)) continue;
            merges.insert(merges.begin() + (long)random(merges.size() + 1), merge);
            if (vocab.emplace(token, (int)vocab.size()).second) tokens.push_back(token);
        }
        std::string vocab_json, merges_text = "#version: 0.2\n";
        for (const auto& [token, id] : vocab)
            vocab_json += (vocab_json.empty() ? "{" : ",") + json_quote(token) + ":" + std::to_string(id);
        for (const auto& [left, right] : merges) merges_text += left + " " + right + "\n";
        TempFolder temp;
        write_bytes(temp / "vocab.json", vocab_json + "}");
        write_bytes(temp / "merges.txt", merges_text);
        write_bytes(temp / "tokenizer_config.json", R"({"tokenizer_class": "Qwen2Tokenizer"})");
        const Tokenizer t = tokenizer_load(temp.path);
        for (size_t n = 1; n <= 80; n++) {
            std::string piece;
            while (piece.size() < n) piece += tokens[random(4)];
            CHECK_EQ(ids_text(tokenizer_encode(t, piece)), ids_text(merge_naively(merges, vocab, piece)));
        }
    }
}

// A million bytes that are one piece, one mark after the other, or all added tokens; quadratic time would be hours.
TEST(long_runs) {
    const Tokenizer t = tokenizer_load(golden + "/qwen");
    const Json cases = json_parse_file(golden + "/texts.json");
    for (const Json& c : json_array(cases, "long", "texts.json")) {
        std::string text;
        for (long long i = json_int(c, "repeat", "long"); i > 0; i--) text += json_string(c, "unit", "long");
        auto start = std::chrono::steady_clock::now();
        std::vector<int> ids = tokenizer_encode(t, text);
        CHECK(seconds_since(start) < 10);
        CHECK_EQ((long long)ids.size(), json_int(c, "n_ids", "long"));
        CHECK_EQ(ids_sha256(ids), json_string(c, "sha256", "long"));
    }
}

TEST(text_that_is_not_utf8) {
    const Tokenizer t = tokenizer_load(golden + "/qwen");
    for (const char* bad : {"\x80", "\xC0\xAF", "\xE2\x82", "\xED\xA0\x80", "\xF4\x90\x80\x80", "\xFF", "\xE0\x80\x80"})
        CHECK_ERROR(tokenizer_encode(t, std::string("\u00e9 ab") + bad), "at offset 5. HINT");
    CHECK_ERROR(tokenizer_encode(t, "a\xFF"), "byte 0xFF at offset 1");
}

// Three thousand added tokens that begin alike: what they cost at each place of a text must not grow with their number.
TEST(thousands_of_added_tokens) {
    TempFolder temp;
    std::string more = "\"added_tokens\":[";
    for (int i = 0; i < 3000; i++)
        more += format(R"({"id":%d,"content":"<|reserved_%04d|>","single_word":false,"lstrip":false,"rstrip":false,)"
                       R"("normalized":false,"special":true},)",
                       984 + i, i);
    copy_golden(temp, "qwen", "tokenizer.json", "\"added_tokens\":[", more);
    auto start = std::chrono::steady_clock::now();
    const Tokenizer t = tokenizer_load(temp.path);
    CHECK_EQ(tokenizer_size(t), 3984u);
    std::string text;
    for (int i = 0; i < 100000; i++) text += i % 1000 == 0 ? "<|reserved_2999|>" : "<|reserved_";
    const std::vector<int> ids = tokenizer_encode(t, text);
    CHECK_EQ(std::count(ids.begin(), ids.end(), 3983), 100);
    CHECK(seconds_since(start) < 10);
}

// The golden folder, changed, and the message that loading it must give.
static void check_refused(const std::string& folder, const std::string& file, const std::string& from,
                          const std::string& to, const std::string& message) {
    TempFolder temp;
    copy_golden(temp, folder, file, from, to);
    CHECK_ERROR(tokenizer_load(temp.path), message);
    CHECK_ERROR(tokenizer_load(temp.path), temp.path);
    CHECK_ERROR(tokenizer_load(temp.path), "HINT: ");
}

TEST(missing_files) {
    CHECK_ERROR(tokenizer_load("/nowhere"), "/nowhere/vocab.json is missing");
    CHECK_ERROR(tokenizer_load("/nowhere"), "HINT: ");
    for (const char* file : {"vocab.json", "merges.txt", "tokenizer_config.json"}) {
        TempFolder temp;
        for (const char* other : {"vocab.json", "merges.txt", "tokenizer_config.json"})
            if (std::string(other) != file) write_bytes(temp / other, read_bytes(golden + "/pair/" + other));
        CHECK_ERROR(tokenizer_load(temp.path), temp / file + " is missing");
    }
}

TEST(broken_vocabulary) {
    const char* v = "vocab.json";
    check_refused("pair", v, "\"#\":2,", "\"#\":1,", "the id 1 is given twice");
    check_refused("pair", v, "\"#\":2,", "\"#\":972,", "the id 972, which is given to another token");
    check_refused("pair", v, "\"#\":2,", "\"#\":984,", "from 0 to 983");
    check_refused("pair", v, "\"#\":2,", "\"#\":-2,", "found the number -2");
    check_refused("pair", v, "\"#\":2,", "\"#\":2.5,", "found the number 2.5");
    check_refused("pair", v, "\"#\":2,", "\"#\":\"2\",", "found the string \"2\"");
    check_refused("pair", v, "\"#\":2,", "\"\u4e16\":2,", "isn't written in the byte-level alphabet");
    check_refused("pair", v, "\"#\":2,", "\"\":2,", "isn't written in the byte-level alphabet");
    check_refused("pair", v, "\"#\":2,", "\"#\":2,\"hello\":983,", "as an added token it has 979");
    check_refused("pair", v, "{", "[{", "broken JSON");
}

TEST(broken_merges) {
    const char* m = "merges.txt";
    check_refused("pair", m, "0.2\n", "0.2\nab\n",
                  "merges.txt:2: expected two tokens with a space between them, found \"ab\"");
    check_refused("pair", m, "0.2\n", "0.2\na b c\n", "merges.txt:2: expected two tokens");
    check_refused("pair", m, "0.2\n", "0.2\n \na b c\n", "merges.txt:3: expected two tokens");
    check_refused("pair", m, "0.2\n", "0.2\n a\n", "merges.txt:2: the merge of \"\" and \"a\": \"\" isn't");
    check_refused("pair", m, "0.2\n", "0.2\nzqx j\n", "merges.txt:2: the merge of \"zqx\" and \"j\": \"zqx\" isn't");
    check_refused("pair", m, "0.2\n", "0.2\nz q\n", "makes \"zq\", which isn't in the vocabulary");
    check_refused("pair", m, "0.2\n", "0.2\ne r\n", "merges.txt:4: the merge of \"e\" and \"r\" is there twice");
    check_refused("pair", m, "0.2\n", "0.2\n\xFF t\n", "expected UTF-8, found byte 0xFF at offset 14");
    check_refused("llama", "tokenizer.json", "\"merges\":[", "\"merges\":[7,",
                  "merge 0: expected two tokens, found the number 7");
    check_refused("qwen", "tokenizer.json", "\"merges\":[", "\"merges\":[[1,2],", "merge 0: expected two tokens, found an array of 2");
    check_refused("qwen", "tokenizer.json", "\"merges\":[", "\"merges\":[[\"a\"],", "merge 0: expected two tokens");
}

TEST(unsupported_tokenizers) {
    const char* j = "tokenizer.json";
    check_refused("qwen", j, "\"NFC\"", "\"NFKC\"", "the normalizer is \"NFKC\", expected \"NFC\". HINT");
    check_refused("qwen", j, "|\\\\p{N}|", "|\\\\p{N}{1,2}|", "the pre-tokenizer's regular expression is");
    check_refused("qwen", j, "\"Isolated\"", "\"Removed\"", "behavior is \"Removed\"");
    check_refused("qwen", j, "\"invert\":false", "\"invert\":true", "invert is \"true\"");
    check_refused("qwen", j, "\"Split\"", "\"Punctuation\"", "first step is \"Punctuation\"");
    check_refused("smollm", j, "\"use_regex\":true", "\"use_regex\":false", "use_regex is \"false\"");
    check_refused("gpt2", j, "\"use_regex\":true", "\"use_regex\":false", "use_regex is \"false\"");
    check_refused("gpt2", j, "\"add_prefix_space\":false", "\"add_prefix_space\":true", "add_prefix_space is \"true\"");
    check_refused("qwen", j, "\"Sequence\"", "\"Metaspace\"", "the pre-tokenizer is \"Metaspace\"");
    check_refused("qwen", j, "\"use_regex\":false", "\"use_regex\":true", "use_regex is \"true\"");
    check_refused("qwen", j, "\"add_prefix_space\":false", "\"add_prefix_space\":true", "add_prefix_space is \"true\"");
    check_refused("qwen", j, "\"BPE\"", "\"Unigram\"", "type is \"Unigram\": this is a SentencePiece tokenizer");
    check_refused("qwen", j, "\"BPE\"", "\"WordPiece\"", "type is \"WordPiece\"");
    check_refused("qwen", j, "\"byte_fallback\":false", "\"byte_fallback\":true", "byte_fallback is \"true\"");
    check_refused("qwen", j, "\"dropout\":null", "\"dropout\":0.1", "dropout is 0.1, expected none");
    check_refused("qwen", j, "\"end_of_word_suffix\":null", "\"end_of_word_suffix\":\"</w>\"", "suffix is \"</w>\"");
    check_refused("qwen", j, "\"lstrip\":false", "\"lstrip\":true", "has lstrip = true");
    check_refused("qwen", j, "\"normalized\":false", "\"normalized\":true", "normalized = true");
    check_refused("qwen", j, "\"id\":972", "\"id\":973", "has the id 973, but \"<|endoftext|>\" has 973");
    check_refused("qwen", j, "\"id\":972", "\"id\":990", "has the id 990: expected at most 983");
    check_refused("qwen", j, "\"id\":972", "\"id\":5", "has the id 5, which is given to another token");
    check_refused("pair", "tokenizer_config.json", "Qwen2Tokenizer", "GPT2Tokenizer",
                  "tokenizer_class is \"GPT2Tokenizer\", expected");
    check_refused("pair", "tokenizer_config.json", "\"972\"", "\"97z\"", "\"97z\" isn't an id");
}

// Without a tokenizer.json, only the class says how text is split.
TEST(files_that_do_not_say_how_text_is_split) {
    check_refused("pair", "tokenizer_config.json", "\"tokenizer_class\"", "\"some_class\"", "\"tokenizer_class\" is missing");
    check_refused("qwen", "tokenizer.json", "\"type\":\"Sequence\"", "\"type\":\"Metaspace\"", "SentencePiece");
    TempFolder temp;
    write_bytes(temp / "tokenizer.model", "\n\x0e");
    write_bytes(temp / "tokenizer_config.json", "{}");
    CHECK_ERROR(tokenizer_load(temp.path), "found tokenizer.model: this is a SentencePiece tokenizer");
}

// Every file may begin with a byte-order mark, and merges.txt may have empty lines.
TEST(byte_order_marks_in_tokenizer_files) {
    for (const char* folder : {"pair", "qwen"}) {
        TempFolder temp;
        copy_golden(temp, folder);
        for (const auto& entry : std::filesystem::directory_iterator(golden + "/" + folder)) {
            const std::string name = entry.path().filename().string(), end = name == "merges.txt" ? "\n \n" : "";
            write_bytes(temp / name, "\xEF\xBB\xBF" + read_bytes(temp / name) + end);
        }
        const Tokenizer a = tokenizer_load(golden + "/" + folder), b = tokenizer_load(temp.path);
        CHECK(a.bytes == b.bytes && a.merged == b.merged);
    }
}

// What transformers 5.24 makes of names of special tokens that no list of added tokens has: each becomes one, with the id that the
// vocabulary has for it, else the next. From `expected`: the ids of "a<X>the<Y>".
static void check_named(const std::string& config, const std::string& map, const std::string& expected) {
    TempFolder temp;
    copy_golden(temp, "qwen");
    write_bytes(temp / "tokenizer_config.json", config);
    if (!map.empty()) write_bytes(temp / "special_tokens_map.json", map);
    CHECK_EQ(ids_text(tokenizer_encode(tokenizer_load(temp.path), "a<X>the<Y>")), expected);
}

TEST(special_tokens_that_only_settings_name) {
    const Tokenizer t = tokenizer_load(golden + "/qwen");
    auto text_ids = [&](const char* text) { return ids_text(tokenizer_encode(t, text)); };
    const std::string a = text_ids("a"), the = text_ids("the"), none = text_ids("a<X>the<Y>"), y = text_ids("<Y>");
    const std::string both = a + "984 " + the + "985 ";
    const std::string token = R"({"content":"<X>","lstrip":false,"rstrip":false,"single_word":false,"normalized":false})";
    check_named("{}", "", none);
    check_named(R"({"additional_special_tokens":["<X>","<Y>"]})", "", both);
    check_named(R"({"extra_special_tokens":["<X>","<Y>"]})", "", both);
    check_named(R"({"extra_special_tokens":{"one":"<X>","two":"<Y>"}})", "", both);
    check_named(R"({"model_specific_special_tokens":{"one":"<X>","two":"<Y>"}})", "", both);
    check_named(R"({"additional_special_tokens":["<Y>"],"mask_token":"<X>"})", "", both);
    check_named(R"({"mask_token":"<Y>","bos_token":"<X>"})", "", both);
    check_named(R"({"image_token":"<Y>","pad_token":)" + token + "}", "", both);
    check_named(R"({"eos_token":"<|im_end|>","pad_token":null,"image_token":"<X>"})", "", a + "984 " + text_ids("the<Y>"));
    check_named("{}", R"({"mask_token":"<X>","additional_special_tokens":["<Y>"]})", both);
    check_named(R"({"mask_token":"<Y>"})", R"({"mask_token":"<X>"})", a + "984 " + text_ids("the<Y>"));
    check_named(R"({"added_tokens_decoder":{}})", R"({"mask_token":"<X>"})", none);
    check_named(R"({"image_token":"<X>","extra_special_tokens":{"one":"<Y>"}})", "", both);
    // "<" is in the vocabulary, and becomes an added token with its id: "<" and "X" can't merge any more.
    check_named(R"({"cls_token":"<"})", "", a + text_ids("<") + text_ids("X>the") + text_ids("<") + text_ids("Y>"));
    TempFolder temp;
    copy_golden(temp, "qwen");
    write_bytes(temp / "added_tokens.json", R"({"<|im_end|>":974})");
    CHECK_EQ(tokenizer_size(tokenizer_load(temp.path)), 984u);
    write_bytes(temp / "added_tokens.json", R"({"<|im_end|>":974,"<X>":984})");
    CHECK_ERROR(tokenizer_load(temp.path), "token \"<X>\" with the id 984 stands in no other file");
}

// Several lists: which of their tokens count differs between versions of transformers and with the file that a list stands in.
TEST(several_lists_of_special_tokens) {
    const std::string x = R"(_special_tokens":["<X>"])", known = R"(_special_tokens":["<|im_end|>"])";
    const std::pair<std::string, std::string> refused[] = {
        {R"({"additional)" + x + R"(,"extra)" + known + "}", ""},
        {R"({"additional)" + known + R"(,"extra)" + x + "}", ""},
        {R"({"additional)" + known + "}", R"({"additional)" + x + "}"},
        {R"({"extra)" + x + "}", R"({"extra)" + known + "}"},
        {R"({"extra_special_tokens":{"one":"<X>"},"model_specific_special_tokens":{"two":"<|im_end|>"}})", ""},
        {R"({"image_token":"<|im_end|>","model_specific_special_tokens":{"two":"<X>"}})", ""}};
    for (const auto& [config, map] : refused)
        CHECK_ERROR(check_named(config, map, ""), "has token \"<X>\", which stands nowhere else, and there is another list");
    const std::string none = ids_text(tokenizer_encode(tokenizer_load(golden + "/qwen"), "a<X>the<Y>"));
    check_named(R"({"additional)" + known + R"(,"extra)" + known + "}", R"({"additional)" + known + "}", none);
}

// The class Qwen2Tokenizer has rules of its own. With transformers 5.24 they count and tokenizer.json's don't, with others it is the
// other way round: what differs is refused, and what doesn't has the same ids (golden: `tokenizers`' of the file).
TEST(a_class_with_rules_of_its_own) {
    for (const char* name : {"qwen", "llama", "smollm", "gpt2"}) {
        TempFolder temp;
        copy_golden(temp, name);
        for (const char* kind : {"Qwen2Tokenizer", "Qwen2TokenizerFast", "PreTrainedTokenizerFast", "GPT2Tokenizer"}) {
            write_bytes(temp / "tokenizer_config.json", std::string("{\"tokenizer_class\":\"") + kind + "\"}");
            if (std::string(name) == "qwen" || *kind != 'Q')
                CHECK_EQ(tokenizer_size(tokenizer_load(temp.path)), tokenizer_size(tokenizer_load(golden + "/" + name)));
            else CHECK_ERROR(tokenizer_load(temp.path), "names the class Qwen2Tokenizer, which has rules of its own");
        }
    }
    TempFolder temp;
    copy_golden(temp, "qwen");
    write_bytes(temp / "tokenizer_config.json",
                R"({"tokenizer_class":"Qwen2Tokenizer","added_tokens_decoder":{"972":{"content":"<|endoftext|>",)"
                R"("lstrip":false,"rstrip":false,"single_word":false,"normalized":false}}})");
    CHECK_ERROR(tokenizer_load(temp.path), "isn't in the added_tokens_decoder of");
}

// Settings that would change the ids.
TEST(settings_beside_the_vocabulary) {
    const struct {
        const char *config, *message;
    } cases[] = {{R"({"split_special_tokens":true})", "split_special_tokens is \"true\", expected \"false\""},
                 {R"({"add_prefix_space":true})", "add_prefix_space is \"true\""},
                 {R"({"fix_mistral_regex":true})", "fix_mistral_regex is \"true\""},
                 {R"({"fast_tokenizer_files":["tokenizer.json","tokenizer.4.0.json"]})", "fast_tokenizer_files is \"tokenizer.4.0.json\""},
                 {R"({"extra_special_tokens":"<X>"})", "\"extra_special_tokens\" should be a list of tokens"},
                 {R"({"additional_special_tokens":[7]})", "\"additional_special_tokens\" should be a token, found the number 7"},
                 {R"({"mask_token":{"content":"<X>","lstrip":true}})", "\"mask_token\": added token \"<X>\" has lstrip = true"},
                 {"[]", "expected an object, found an array of 0"}};
    for (const auto& c : cases) {
        TempFolder temp;
        copy_golden(temp, "qwen");
        write_bytes(temp / "tokenizer_config.json", c.config);
        CHECK_ERROR(tokenizer_load(temp.path), c.message);
        CHECK_ERROR(tokenizer_load(temp.path), "/tokenizer_config.json: ");
        write_bytes(temp / "tokenizer_config.json", R"({"split_special_tokens":false,"add_prefix_space":null,"fast_tokenizer_files":null})");
        CHECK_EQ(tokenizer_size(tokenizer_load(temp.path)), 984u);
    }
    check_refused("qwen", "tokenizer.json", "\"content\":\"<<\"", "\"content\":\"" + std::string(1025, '<') + "\"",
                  "has 1025 bytes, expected at most 1024");
}

// tokenizer_config.json is read beside tokenizer.json too: it may add tokens, and must not contradict.
TEST(config_beside_tokenizer_json) {
    TempFolder temp;
    write_bytes(temp / "tokenizer.json", read_bytes(golden + "/qwen/tokenizer.json"));
    std::string token = R"({"content":"<new>","lstrip":false,"rstrip":false,"single_word":false,"normalized":false})";
    write_bytes(temp / "tokenizer_config.json", R"({"added_tokens_decoder":{"984":)" + token + "}}");
    const Tokenizer t = tokenizer_load(temp.path);
    CHECK_EQ(tokenizer_size(t), 985u);
    CHECK_EQ(ids_text(tokenizer_encode(t, "<new><|endoftext|>")), "984 972 ");
    write_bytes(temp / "tokenizer_config.json", R"({"added_tokens_decoder":{"972":)" + token + "}}");
    CHECK_ERROR(tokenizer_load(temp.path), "\"<new>\" has the id 972, but \"<|endoftext|>\" has 972");
}

// WikiText-2's text as the perplexity protocol makes it: a row a line, blank ones empty, joined with "\n\n".
static std::string wikitext2_text(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    if (!file) fail("%s can't be read", path.c_str());
    std::string text, line;
    for (int row = 0; std::getline(file, line); row++) {
        if (row > 0) text += "\n\n";
        if (line.find_first_not_of(" \t\r") != std::string::npos) text += line + "\n";
    }
    return text;
}

TEST(real_wikitext2) {
    const std::string data = shared_data();
    auto start = std::chrono::steady_clock::now();
    const Tokenizer t = tokenizer_load(data + "/qwen3-tokenizer");
    printf("         Qwen3's tokenizer is loaded in %.3f s\n", seconds_since(start));
    CHECK_EQ(tokenizer_size(t), 151669u);
    const std::string text = wikitext2_text(data + "/wikitext2/wiki.test.raw");
    std::vector<int> ids = tokenizer_encode(t, text);
    CHECK_EQ(ids.size(), 299078u);
    CHECK_EQ(ids_text({ids.begin(), ids.begin() + 8}), "271 284 8397 425 10965 465 284 76325 ");
    CHECK_EQ(ids_sha256(ids), "b44603066a92719a20e2dc18d6c5f7f5342b1877c20c1e2bdd92deca662d3d56");
    CHECK(tokenizer_encode(t, text) == ids);
    CHECK_EQ(tokenizer_decode(t, ids), text);
}

TEST(real_golden_encodings) {
    const std::string dir = shared_data() + "/qwen3-tokenizer";
    const Tokenizer t = tokenizer_load(dir);
    const Json cases = json_parse_file(dir + "/golden_encodings.json");
    CHECK_EQ(json_array(cases, "cases", dir).size(), 16u);
    for (const Json& c : json_array(cases, "cases", dir))
        check_ids(t, json_string(c, "text", dir), json_get(c, "ids", dir));
    CHECK_EQ(tokenizer_id(t, "<|endoftext|>"), 151643);
    CHECK_EQ(tokenizer_id(t, "</think>"), 151668);
    CHECK_EQ(tokenizer_id(t, " D"), 422);
}

TEST(real_c4) {
    const std::string data = shared_data();
    const Tokenizer t = tokenizer_load(data + "/qwen3-tokenizer");
    std::ifstream file(data + "/c4/validation.jsonl");
    std::vector<std::string> texts;
    for (std::string line; std::getline(file, line);)
        texts.push_back(json_string(json_parse(line.data(), line.size(), "c4"), "text", "c4"));
    CHECK_EQ(texts.size(), 2128u);
    std::vector<int> all;
    size_t bytes = 0, changed = 0;
    double seconds = 0;
    for (const std::string& text : texts) {
        auto start = std::chrono::steady_clock::now();
        std::vector<int> ids = tokenizer_encode(t, text);
        seconds += seconds_since(start);
        bytes += text.size();
        std::string decoded = tokenizer_decode(t, ids);
        CHECK_EQ(decoded, unicode_nfc(text.data(), text.size()));
        changed += decoded != text;
        all.insert(all.end(), ids.begin(), ids.end());
    }
    printf("         %zu bytes in %.3f s, %.1f MB/s\n", bytes, seconds, 1e-6 * (double)bytes / seconds);
    // From Hugging Face tokenizers 0.23.3, document by document; NFC changes four documents.
    CHECK_EQ(changed, 4u);
    CHECK_EQ(all.size(), 1402991u);
    CHECK_EQ(ids_sha256(all), "47c7417a3d16cc052a79828e3b2963955e3ae9e9942fdafb88780fd903fda9e8");
}

// The tokenizers of published models in $QWEN3_MODELS (else ../shared/models), against Hugging Face tokenizers 0.23.3 on all of
// WikiText-2's test and validation split and the first 1000 C4 documents.
static void check_published(const std::string& model, const std::string& wiki_test, const std::string& wiki_valid,
                            const std::string& c4) {
    const char* env = getenv("QWEN3_MODELS");
    const std::string data = shared_data(), dir = (env && *env ? env : "../shared/models") + ("/" + model);
    if (!file_exists(dir + "/tokenizer.json")) SKIP("no " + model + " in $QWEN3_MODELS or ../shared/models");
    const Tokenizer t = tokenizer_load(dir);
    CHECK_EQ(ids_sha256(tokenizer_encode(t, wikitext2_text(data + "/wikitext2/wiki.test.raw"))), wiki_test);
    CHECK_EQ(ids_sha256(tokenizer_encode(t, wikitext2_text(data + "/wikitext2/wiki.valid.raw"))), wiki_valid);
    std::ifstream file(data + "/c4/validation.jsonl");
    std::vector<int> all;
    std::string line;
    for (int i = 0; i < 1000 && std::getline(file, line); i++) {
        const std::vector<int> ids =
            tokenizer_encode(t, json_string(json_parse(line.data(), line.size(), "c4"), "text", "c4"));
        all.insert(all.end(), ids.begin(), ids.end());
    }
    CHECK_EQ(ids_sha256(all), c4);
}

TEST(published_smollm2) {
    check_published("smollm2-135m", "aa72485a43ad244db418ec90db75b81905cf39905a80d72a8f56121c2a8593f3",
                    "9332d41a6e485b32a2c29c3c49bf46674280e3d0216f621a23c6688c7aeebf93",
                    "6ea18a902b2fa00219882b5c49b3d056e4aa613903742788a2d8483605dcfa94");
}

TEST(published_qwen25) {
    check_published("qwen2.5-0.5b", "b44603066a92719a20e2dc18d6c5f7f5342b1877c20c1e2bdd92deca662d3d56",
                    "5589175bd3ba8ced31b19b38ddd60715ea7779fdd8b3653f73eb973ee44dc76a",
                    "5dfffe287cea78a2e07a1b5d37cc1e1d7b5b35d00713a7ad3ae92c2cefc7e4b4");
}
