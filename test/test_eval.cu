// Perplexity, the text sets and the report: against brute force, against Python (random.Random and Hugging Face's tokenizer on the
// real files), and against the paper's tables.
#include "../data/sha256.h"
#include "../qwen3.cu"
#include "temp.h"
#include "test.h"
#include <map>
#include <set>

TEST(perplexity_is_the_exponential_of_the_mean_window_loss) {
    // Three windows of 4 tokens: losses 1, 2, 6 (means over 3 targets).
    const Estimate p = perplexity({-1, -1, -1, -2, -1, -3, -6, -6, -6}, 3, 4);
    CHECK_NEAR(p.value, std::exp(3.0), 1e-9);
    CHECK_NEAR(p.stderr_, std::exp(3.0) * std::sqrt((4 + 1 + 9) / 2.0) / std::sqrt(3.0), 1e-9);
    CHECK_EQ(p.n, (size_t)3);
    CHECK(std::isnan(perplexity({-1, -1, -1}, 1, 4).stderr_));  // one window has no standard error
}

TEST(wikitext_rows_are_joined_with_two_newlines) {
    const std::string path = format("/tmp/qwen3_test_wiki_%d.raw", getpid());
    write_file(path, " \n = Title = \n \t \n text , a \n");
    CHECK_EQ(wikitext_text(path), "\n\n = Title = \n\n\n\n\n text , a \n");
    write_file(path, "a\nb");
    CHECK_EQ(wikitext_text(path), "a\n\n\nb");
    remove(path.c_str());
}

// A WikiText-2 that is cut off, has CRLF, a byte-order mark or is another split: announced, and no number of the paper's is of it.
TEST(a_wikitext2_that_is_not_the_official_one) {
    const std::string data = shared_data();
    const Tokenizer t = tokenizer_load("data/tiny");
    CHECK(wikitext2_set(t, data, 1).official);
    CHECK_EQ(wikitext2_set(t, data, 0).variant, "test, joined with two newlines");
    const std::string text = read_bytes(data + "/wikitext2/wiki.test.raw");
    std::string crlf;
    for (char c : text) crlf += c == '\n' ? "\r\n" : std::string(1, c);
    TempFolder dir;
    std::filesystem::create_directories(dir / "wikitext2");
    std::vector<int> ids;
    const std::string valid = read_bytes(data + "/wikitext2/wiki.valid.raw");
    for (const std::string& other : {text.substr(0, text.size() - 1), crlf, "\xEF\xBB\xBF" + text, valid}) {
        write_bytes(dir / "wikitext2/wiki.test.raw", other);
        const TextSet set = wikitext2_set(t, dir.path, 0);
        CHECK(!set.official);
        CHECK_EQ(set.variant, "test, joined with two newlines, not the official wiki.test.raw");
        if (other[0] == '\xEF') CHECK(set.tokens == wikitext2_set(t, data, 0).tokens);  // the mark itself is no text
    }
    write_bytes(dir / "wikitext2/wiki.test.raw", "\n \n");
    CHECK_ERROR(wikitext2_set(t, dir.path, 0), " tokens are less than one window of 2048. HINT: the whole set (scripts/download.sh wikitext2)");
    write_bytes(dir / "wikitext2/wiki.test.raw", "\xEF\xBB\xBF" "ab \n \xE9");
    CHECK_ERROR(wikitext2_set(t, dir.path, 0), "wiki.test.raw: byte 0xE9 at offset 8 isn't UTF-8");
    std::filesystem::create_directories(dir / "c4");
    write_bytes(dir / "c4/validation.jsonl", "{\"text\": \"short\"}\n");
    CHECK_ERROR(c4_set(t, dir.path, "data/paper/c4_windows.csv", 0), "has more than 2048 tokens. HINT: the whole set");
    CHECK_ERROR(perplexity({}, 0, 2048), "found none");
}

// Documents are what is written, not the empty lines between.
TEST(empty_lines_are_no_documents) {
    const Tokenizer t = tokenizer_load("data/tiny");
    TempFolder dir;
    std::filesystem::create_directories(dir / "c4");
    const LineFile documents("data/tiny/c4/train.jsonl");
    std::string dense, loose = "\xEF\xBB\xBF\n";
    for (size_t i = 0; i < 20; i++) {
        dense += std::string(documents.line(i)) + "\n";
        loose += std::string(documents.line(i)) + "\r\n \t\n\n";
    }
    write_bytes(dir / "c4/train.jsonl", dense);
    const TextSet a = calibration_set(t, dir.path, "c4", 4, 32, 0);
    write_bytes(dir / "c4/train.jsonl", loose);
    const TextSet b = calibration_set(t, dir.path, "c4", 4, 32, 0);
    CHECK(a.tokens == b.tokens);
    CHECK_EQ(b.variant, "20 train documents, not the official 356317");
    CHECK(!b.official);
    write_bytes(dir / "c4/train.jsonl", "\n\n");
    CHECK_ERROR(calibration_set(t, dir.path, "c4", 4, 32, 0), "expected documents, found an empty file");
}

static std::string sha256_of_ids(const std::vector<int>& ids) {
    return sha256_hex((const char*)ids.data(), ids.size() * sizeof(int));
}

TEST(wikitext2_has_146_windows) {
    const std::string data = shared_data();
    const Tokenizer t = tokenizer_load(data + "/qwen3-tokenizer");
    const TextSet set = wikitext2_set(t, data, 0);
    CHECK_EQ(set.tokens_in_text, (size_t)299078);
    CHECK_EQ(set.n_windows, (size_t)146);
    CHECK_EQ(set.tokens.size(), (size_t)146 * 2048);
    const int first[] = {271, 284, 8397, 425, 10965, 465, 284, 76325};
    for (int i = 0; i < 8; i++) CHECK_EQ(set.tokens[i], first[i]);
    const TextSet few = wikitext2_set(t, data, 3);
    CHECK_EQ(few.n_windows, (size_t)3);
    CHECK(std::equal(few.tokens.begin(), few.tokens.end(), set.tokens.begin()));
}

// The digests are of the ids that Python draws: random.Random(seed) and transformers' tokenizer on the same files.
TEST(c4_windows_and_calibration_are_those_of_python) {
    const std::string data = shared_data();
    const Tokenizer t = tokenizer_load(data + "/qwen3-tokenizer");
    if (LineFile(data + "/c4/train.jsonl").count() != 1128) SKIP("another sample of C4");
    CHECK_EQ(sha256_of_ids(calibration_set(t, data, "c4", 128, 2048, 0).tokens),
             "b0cb9498ed960c5ef28699b5379c7837a0bd511282db7301b5fa514193d80b74");
    CHECK_EQ(sha256_of_ids(calibration_set(t, data, "c4", 8, 512, 7).tokens),
             "8ebb5093d77d94914850b906680716a9ff3e1b540cfc32868396bead76dc4bad");
    const TextSet c4 = c4_set(t, data, "data/paper/c4_windows.csv", 0);
    CHECK_EQ(c4.n_windows, (size_t)256);
    CHECK_EQ(sha256_of_ids(c4.tokens), "54ac9eb83ba210ace1aec1f5603d87186d08375d1f2c27cd387e03e615711011");
    CHECK_EQ(c4.variant.find("256 windows drawn with seed 0 from "), (size_t)0);
    CHECK(c4.variant.find("not the paper's") != std::string::npos);
    const TextSet few_windows = c4_set(t, data, "data/paper/c4_windows.csv", 3);  // the first of them
    CHECK_EQ(few_windows.variant.find("3 windows drawn with seed 0 from "), (size_t)0);
    CHECK(few_windows.tokens == std::vector<int>(c4.tokens.begin(), c4.tokens.begin() + 3 * 2048));
    CHECK(!c4.official);
    CHECK_ERROR(calibration_set(t, data, "c4", 1, 1 << 20, 0), "none of the 1128 documents has more than 1048576 tokens");
}

// Python's draws on the bundled texts, with Hugging Face `tokenizers`: r = random.Random(seed); i = r.randint(0, N - 1) until document i
// has more than `length` tokens, L of them; then r.randint(0, L - length - 1). Of the first case one document has exactly `length`, and
// the ranges are so small that one more or one less would show.
TEST(c4_calibration_is_that_of_python_on_the_bundled_texts) {
    const Tokenizer t = tokenizer_load("data/tiny");
    const LineFile documents("data/tiny/c4/train.jsonl");
    const struct {
        int length, seed;
        std::vector<std::pair<size_t, size_t>> draws;  // document and offset
    } cases[] = {{2731, 2, {{46, 86}, {220, 326}, {278, 227}, {238, 163}, {216, 452}, {90, 120}, {90, 166}, {88, 34}, {228, 106}, {228, 41},
                            {204, 236}, {127, 31}}},
                 {300, 4, {{155, 422}, {369, 1622}}},
                 {300, 0, {{197, 1722}, {20, 1060}}}};
    for (const auto& c : cases) {
        std::vector<int> expected;
        for (const auto& [document, offset] : c.draws) {
            const std::vector<int> ids = tokenizer_encode(t, document_text(documents, document));
            expected.insert(expected.end(), ids.begin() + offset, ids.begin() + offset + c.length);
        }
        CHECK(calibration_set(t, "data/tiny", "c4", (int)c.draws.size(), c.length, c.seed).tokens == expected);
    }
    CHECK_EQ(sha256_of_ids(c4_set(t, "data/tiny", "data/paper/c4_windows.csv", 8).tokens),  // of validation.jsonl: 2048 and seed 0
             "f080d2c290732c8c0e09d5328d49a1b44c9db62ba3edb839e4fc9bc0637ab112");
}

// Windows of the train split's one text begin where random.Random(seed).randint(0, L - length - 1) says; L = 214 is from Hugging Face.
TEST(wikitext2_calibration_is_that_of_python) {
    const Tokenizer t = tokenizer_load("data/tiny");
    TempFolder dir;
    std::filesystem::create_directories(dir / "wikitext2");
    std::string text;
    for (int i = 0; i < 20; i++) text += i % 3 == 1 ? " \n" : format(" Row %d of the text , and what it says . \n", i);
    write_bytes(dir / "wikitext2/wiki.train.raw", text);
    const std::vector<int> ids = tokenizer_encode(t, wikitext_text(dir / "wikitext2/wiki.train.raw"));
    CHECK_EQ(ids.size(), (size_t)214);
    const int length = 207;
    const std::pair<int, std::vector<int>> cases[] = {{0, {6, 3, 6, 3, 0, 2, 4, 3, 3, 6}}, {5, {4, 2, 5, 2, 6, 5, 6, 5, 5, 4}}};
    for (const auto& [seed, offsets] : cases) {
        const TextSet set = calibration_set(t, dir.path, "wikitext2", (int)offsets.size(), length, seed);
        CHECK(set.name == "wikitext2" && set.window == length && set.n_windows == offsets.size());
        for (size_t k = 0; k < offsets.size(); k++)
            CHECK(std::equal(ids.begin() + offsets[k], ids.begin() + offsets[k] + length, set.tokens.begin() + k * length));
    }
    CHECK_ERROR(calibration_set(t, dir.path, "wikitext2", 1, 214, 0), "214 tokens are less than a sample of 214");
}

// The shipped windows are what random.seed(0) and two randints a window gave: a document of 45,576, again while it is too short, then
// an offset below its length - 2048. The lengths were another tokenizer's, so an offset stands for any n above it: all places where the
// stream of 32-bit words may then go on are followed. A document that is in the list once is never too short.
TEST(the_papers_windows_are_a_draw_of_seed_0) {
    const char* path = "data/paper/c4_windows.csv";
    const auto rows = csv_parse_file(path);
    CHECK_EQ(rows.size(), (size_t)1 + 256);
    std::set<int> documents;
    for (size_t r = 1; r < rows.size(); r++) documents.insert(atoi(rows[r][0].c_str()));
    CHECK_EQ(documents.size(), (size_t)231);
    PythonRandom random(0);
    std::vector<uint32_t> words(60000);
    for (uint32_t& word : words) word = random.word();
    std::map<size_t, int> places = {{0, 0}};  // of the next word: documents drawn so far
    for (size_t r = 1; r < rows.size(); r++) {
        const uint32_t document = (uint32_t)atoi(rows[r][0].c_str()), offset = (uint32_t)atoi(rows[r][1].c_str());
        std::map<size_t, int> next;
        for (const auto& place : places) {
            size_t at = place.first;
            int drawn = place.second;
            uint32_t found = C4_VALIDATION_DOCUMENTS;
            for (; at < words.size() && !documents.count((int)found); at++)
                if ((found = words[at] >> 16) < C4_VALIDATION_DOCUMENTS) drawn++;
            for (int bits = 1; found == document && bits <= 20; bits++) {  // of n
                uint32_t least = std::max(offset + 1, 1u << (bits - 1)), most = (1u << bits) - 1;
                size_t end = at;
                for (; end < words.size() && words[end] >> (32 - bits) > offset; end++) most = std::min(most, words[end] >> (32 - bits));
                if (end < words.size() && words[end] >> (32 - bits) == offset && least <= most) next[end + 1] = drawn;
            }
        }
        if (next.empty()) fail("%s:%zu: %u,%u was not drawn", path, r + 1, document, offset);
        places = next;
    }
    CHECK_EQ(places.size(), (size_t)1);
    CHECK_EQ(places.begin()->second, 9055);
    // Small offsets are drawn so often that another one might pass.
    const std::string bytes = read_bytes(path);
    CHECK_EQ(sha256_hex(bytes.data(), bytes.size()), "f0c882517a37ee13af319f7269f55856803b41d14b563f4734dbf70e47cd5d57");
}

TEST(texts_are_stripped_as_python_does) {
    CHECK_EQ(python_strip(""), "");
    CHECK_EQ(python_strip(" \t\r\n\v\f\x1c\x1d\x1e\x1f"), "");
    CHECK_EQ(python_strip("\n a b \n"), "a b");
    CHECK_EQ(python_strip("\u00a0\u3000\u2003x\u2028\u0085\u205f"), "x");
    CHECK_EQ(python_strip("\u200bx\ufeff"), "\u200bx\ufeff");  // zero-width space and BOM are no white space
    CHECK_EQ(python_strip("é\u00a0é "), "é\u00a0é");
}

// The digests are of what numpy.random.default_rng(42).permutation and transformers' tokenizer give on the same files.
TEST(awq_calibration_is_that_of_python_on_c4) {
    const std::string data = shared_data();
    if (LineFile(data + "/c4/train.jsonl").count() != 1128) SKIP("another sample of C4");
    const Tokenizer t = tokenizer_load(data + "/qwen3-tokenizer");
    const TextSet set = awq_calibration_set(t, data);
    CHECK_EQ(set.window, 512);
    CHECK_EQ(set.tokens_in_text, (size_t)22785);
    CHECK_EQ(set.n_windows, (size_t)44);
    CHECK_EQ(sha256_of_ids(set.tokens), "d0ccaed3bbf244ade916e005b7a7e7963332e88b89310483dc8e04c253440769");
    const TextSet few = awq_calibration_set(t, data, 20, 300);
    CHECK_EQ(few.tokens_in_text, (size_t)3036);
    CHECK_EQ(sha256_of_ids(few.tokens), "8b596a0aa9d81eb1f702aefbb7d9dbaf5e2379eeb15538503c4f4442e3e21c89");
}

TEST(awq_calibration_is_that_of_python_on_the_bundled_texts) {
    const Tokenizer t = tokenizer_load("data/tiny");
    const TextSet set = awq_calibration_set(t, "data/tiny");
    CHECK_EQ(set.n_windows, (size_t)70);
    CHECK_EQ(sha256_of_ids(set.tokens), "9084469876f44ec7fea247bd843cab623ee74d3dff35f77f39bdaecb95e7f4fb");
    CHECK_EQ(sha256_of_ids(awq_calibration_set(t, "data/tiny", 128, 512, 7).tokens),
             "1e3eab6de6514e88d518de630b7f8ed8c5972dfa516df074297adf6e13da0b7a");
    CHECK_ERROR(awq_calibration_set(t, "data/tiny", 128, 1), "none of the 370 documents has 1 to 1 tokens");
    // A document of exactly `length` tokens is taken, one of a token more is not.
    const LineFile documents("data/tiny/c4/train.jsonl");
    const std::string text = document_text(documents, numpy_permutation(42, documents.count())[0]);
    const std::vector<int> ids = tokenizer_encode(t, text);
    const int length = (int)ids.size();
    CHECK(awq_calibration_set(t, "data/tiny", 1, length).tokens == ids);
    const TextSet shorter = awq_calibration_set(t, "data/tiny", 20, length - 1);
    CHECK(!std::equal(ids.begin(), ids.begin() + 20, shorter.tokens.begin()));
}

TEST(the_papers_windows_are_taken_from_the_whole_shard) {
    // A shard of the right number of documents, where document i says "i" a few times over.
    const std::string data = shared_data();
    const Tokenizer t = tokenizer_load(data + "/qwen3-tokenizer");
    const std::string dir = format("/tmp/qwen3_test_c4_%d", getpid());
    mkdir(dir.c_str(), 0777), mkdir((dir + "/c4").c_str(), 0777);
    std::string shard;
    for (size_t i = 0; i < C4_VALIDATION_DOCUMENTS; i++)
        shard += "{\"text\": \"" + (i == 25247 ? [] { std::string s; for (int k = 0; k < 2500; k++) s += " a"; return s; }() : "b c d") + "\"}\n";
    write_file(dir + "/c4/validation.jsonl", shard);
    write_file(dir + "/windows.csv", "document,token_offset\n25247,388\n31845,1\n25247,1000\n31845,829\n");
    const TextSet set = c4_set(t, dir, dir + "/windows.csv", 0);
    // 2048 tokens, then 2 of a short document, then 1500 of a slice cut off by its document's end, then none: one window of 3550 tokens.
    CHECK_EQ(set.tokens_in_text, (size_t)2048 + 2 + 1500);
    CHECK_EQ(set.n_windows, (size_t)1);
    CHECK_EQ(set.variant, "the paper's 256 slices");
    CHECK(set.official);
    // In another shard most documents end before the paper's offsets.
    write_file(dir + "/windows.csv", "document,token_offset\n25246,388\n31845,1\n25247,1000\n31845,829\n");
    const TextSet other = c4_set(t, dir, dir + "/windows.csv", 1);
    CHECK(!other.official && other.n_windows == 1);
    CHECK_EQ(other.variant, "1 windows drawn with seed 0 from 45576 documents, not the paper's, whose windows are of another shard");
    write_file(dir + "/windows.csv", "document,token_offset\n\n25247,x\n");
    CHECK_ERROR(c4_set(t, dir, dir + "/windows.csv", 0), "/windows.csv:3: expected two numbers");
    std::filesystem::remove_all(dir);
}

TEST(the_papers_cells_are_found) {
    const std::string csv = "data/paper/tables.csv";
    CHECK_EQ(paper_row_find(csv, "Qwen3-0.6B-Base", "fp16", 16, 16, -1).cell("wikitext2"), "12.7");
    CHECK_EQ(paper_row_find(csv, "Qwen3-0.6B-Base", "gptq", 4, 16, -1).cell("wikitext2"), "18.2");
    CHECK_EQ(paper_row_find(csv, "Qwen3-0.6B-Base", "rtn", 4, 16, -1).cell("c4"), "30.8");
    CHECK(!paper_row_find(csv, "Qwen3-0.6B-Base", "gptq", 4, 16, 128).cell("c4").empty());
    CHECK_EQ(paper_row_find(csv, "Qwen3-0.6B-Base", "gptq", 5, 16, 128).cell("c4"), "");
    CHECK_EQ(paper_row_find(csv, "tiny", "gptq", 4, 16, 128).cell("c4"), "");
    // Two rows that a copy of the tables lacks, and whose values stood under other labels there.
    CHECK_EQ(paper_row_find(csv, "Qwen3-8B", "awq", 3, 16, -1).cell("wikitext2"), "14.9");
    CHECK_EQ(paper_row_find(csv, "Qwen3-8B", "gptq", 2, 16, -1).cell("wikitext2"), "4.66E3");
    const std::vector<std::vector<std::string>> rows = csv_parse_file(csv);
    CHECK_EQ(rows.size(), (size_t)251);
    // Six numbers rounded to 0.1 leave at most 0.05 between their means before and after it, and the average was rounded, too (three of them to
    // 0.01); a row where it is further off says so.
    const auto at = [&](const char* name) { return std::find(rows[0].begin(), rows[0].end(), name) - rows[0].begin(); };
    for (size_t r = 1; r < rows.size(); r++) {
        if (rows[r][at("avg")].empty()) continue;
        double mean = 0;
        for (const char* task : {"piqa", "arc_e", "arc_c", "hellaswag", "winogrande", "boolq"}) mean += paper_number(rows[r][at(task)]) / 6;
        const std::string& avg = rows[r][at("avg")];
        const double half_digit = 0.5 * std::pow(10, -(double)(avg.size() - avg.find('.') - 1));
        const bool differs = std::fabs(mean - paper_number(avg)) > 0.05 + half_digit + 1e-9;
        if (differs != (rows[r][at("note")].find("printed avg differs") != std::string::npos))
            fail("%s: line %zu: average %s, mean %.2f, note \"%s\"", csv.c_str(), r + 1, avg.c_str(), mean, rows[r][at("note")].c_str());
    }
}

static Report example_report() {
    Report r;
    r.model = "Qwen3-0.6B-Base", r.method = "gptq", r.device = "a \"device\"", r.commit = "abc", r.precision = "bf16";
    r.wbits = 4, r.abits = 16, r.group = -1;
    r.options = {{"bits", "4"}}, r.calibration = {{"set", "\"c4\""}};
    r.seconds_load = 1, r.seconds_quantize = 2, r.seconds_evaluate = 3, r.seconds_total = 6, r.peak_host = 100;
    r.paper = paper_row_find("data/paper/tables.csv", r.model, r.method, 4, 16, -1);
    r.kl.push_back({"wikitext2", 0.25, 0.01, 93.5, 0.5, 146});
    r.tasks.push_back({"wikitext2", "ppl", "test", 18.25, 0.125, 146, 299008, "18.2"});
    r.tasks.push_back({"c4", "ppl", "drawn", NAN, INFINITY, 256, 524288, "5.81E4"});
    r.modules.push_back({0, "q_proj", "output", 0.5, {{"damp", 0.01}}, "damping raised"});
    return r;
}

TEST(report_row_has_the_paper_beside_it) {
    const std::string text = report_text(example_report());
    CHECK(text.find("Qwen3-0.6B-Base  gptq        4  16  -") != std::string::npos);
    CHECK(text.find("18.25 +-0.12") != std::string::npos);
    CHECK(text.find("paper                     18.2") != std::string::npos);
    CHECK(text.find("0.2500 +-0.01") != std::string::npos && text.find("93.50 +-0.5") != std::string::npos);
    CHECK(text.find("difference                +0.05") != std::string::npos);
    CHECK(text.find('*') == std::string::npos);
    CHECK_EQ(number_text(52500.0), "5.250E4");
    CHECK_EQ(number_text(12.734), "12.73");
    CHECK_EQ(number_text(99999.96), "1.000E5");
    CHECK_EQ(number_text(9999.7), "1.000E4");
    CHECK_EQ(number_text(9999.4), "9999.");
    CHECK_EQ(number_text(HUGE_VAL), "Inf");
}

// Where two papers have a cell, both are shown, each by its name; a set that is not theirs has neither's.
TEST(report_row_has_later_papers_beside_it) {
    Report r;
    r.model = "Qwen3-8B-Base", r.method = "fp16", r.wbits = r.abits = 16, r.group = -1;
    find_published(r, config_official("8b"));
    CHECK_EQ(r.others.size(), (size_t)1);
    CHECK_EQ(r.paper.cell("wikitext2"), "6.99");
    r.tasks.push_back({"wikitext2", "ppl", "test", 7.18, 0.05, 146, 299008, r.paper.cell("wikitext2")});
    r.tasks.push_back({"c4", "ppl", "drawn", 11.60, 0.2, 256, 524288, ""});
    r.tasks[1].official = false;
    const std::string text = report_text(r), json = report_json(r);
    const size_t study = text.find("paper                        6.99"), foem = text.find("FOEM's paper                 7.00");
    CHECK(study < foem && foem != std::string::npos);
    CHECK(text.find("+0.19 *") < foem && text.find("+0.18 *") > foem);
    CHECK(text.find("+0.18 *") != std::string::npos && text.find("10.43") == std::string::npos);
    CHECK(text.find("note on FOEM's paper's row: the paper calls the model Qwen3-8B,") != std::string::npos);
    CHECK(json.find("\"other_papers\": [{\"paper\": \"FOEM's paper\", \"wikitext2\": 7, \"c4\": 10.43,") != std::string::npos);
    r.tasks.push_back({"mmlu", "acc", "test", 76, 0.4, 14042, 1700000, ""});
    CHECK(report_text(r).find("76.7") != std::string::npos);
    r.tasks[2].lm_eval_style = true;  // theirs is of the paper's style
    CHECK(report_text(r).find("76.7") == std::string::npos);
    // One that the study has not, and one that nobody has.
    r.method = "foem", r.wbits = 3, r.group = 128, r.others.clear();
    find_published(r, config_official("8b"));
    CHECK(r.paper.cells.empty());
    CHECK_EQ(r.others[0].cell("c4"), "11.52");
    r.wbits = 4, r.others.clear();
    find_published(r, config_official("8b"));
    CHECK(r.others.empty());
}

// A folder's name alone is not the model.
TEST(cells_are_of_the_models_shape) {
    for (const char* size : {"0.6b", "1.7b", "4b", "8b", "14b", "32b"}) {
        std::string name = std::string("Qwen3-") + size;
        name.back() = 'B';
        CHECK(has_official_shape(config_official(size), name));
        CHECK(has_official_shape(config_official(size), name + "-Base"));
        CHECK(!has_official_shape(config_official(std::string(size) == "8b" ? "4b" : "8b"), name));
    }
    Report r;
    r.model = "Qwen3-8B", r.method = "fp16", r.wbits = r.abits = 16, r.group = -1;
    find_published(r, config_official("8b"));
    CHECK(!r.paper.cells.empty() && r.notes.empty() && r.not_the_papers.empty());
    Config other = config_official("8b");
    other.L = 35;
    find_published(r, other);
    CHECK_EQ(r.notes.back(), "the folder's name is Qwen3-8B, but the model's shape isn't: the papers' cells are another model's");
    CHECK(r.not_the_papers == std::vector<std::string>{"shape"});
    CHECK(r.paper.other_shape && !r.paper.cells.empty());
    Report base = r;
    base.model = "Qwen3-8B-Base", base.not_the_papers.clear();
    find_published(base, other);
    CHECK(base.others.size() == 1 && base.others[0].other_shape);
    base.tasks.push_back({"wikitext2", "ppl", "test", 7.18, 0.05, 146, 299008, base.paper.cell("wikitext2")});
    const std::string row = report_text(base);
    for (const char* label : {"  paper, of another shape  ", "  FOEM's paper, of another shape  "}) CHECK(row.find(label) != std::string::npos);
    // Of settings that aren't the paper's, too; but then no cells are shown, which is all that is noted of them.
    r.notes.clear(), r.not_the_papers = {"--limit"};
    find_published(r, other, true);
    find_published(r, other, true);  // as of a saved checkpoint, whose file says so already
    CHECK(r.not_the_papers == (std::vector<std::string>{"--limit", "quantized by others", "shape"}));
    CHECK(r.paper.cells.empty() && r.others.empty());
    CHECK_EQ(r.notes.size(), (size_t)2);
    CHECK_EQ(r.notes[0], "no paper's cells stand beside this row, whose settings or texts are others than theirs: --limit");
    r.notes.clear();
    CHECK(!leave_out_published(r) && r.notes.empty());  // none are left
    r.model = "mine", r.notes.clear(), r.not_the_papers.clear();
    find_published(r, other);
    CHECK(r.notes.empty() && r.not_the_papers.empty());
    CHECK(has_official_shape(other, "Llama-3-8B") && has_official_shape(other, ""));
}

// Cells stand beside what others quantized, and beside SmoothQuant's two ways; a note says what is not known of them.
TEST(what_may_differ_from_the_papers_cells_is_noted) {
    Report r;
    r.model = "Qwen3-8B-AWQ", r.method = "awq", r.wbits = 4, r.abits = 16, r.group = 128, r.loaded = true;
    find_published(r, config_official("8b"), true);
    CHECK_EQ(r.paper.cell("wikitext2"), "11.3");
    CHECK(r.notes.size() == 1 && r.notes[0].find("quantized by others") == 0);
    CHECK(r.not_the_papers == std::vector<std::string>{"quantized by others"});
    Report ours = r;
    ours.notes.clear(), ours.not_the_papers.clear();
    find_published(ours, config_official("8b"), false);
    CHECK(!ours.paper.cells.empty() && ours.notes.empty() && ours.not_the_papers.empty());
    Report smooth;
    smooth.model = "Qwen3-8B", smooth.method = "smoothquant", smooth.wbits = smooth.abits = 8, smooth.group = -1;
    find_published(smooth, config_official("8b"));
    CHECK(!smooth.paper.cells.empty() && smooth.not_the_papers.empty() && smooth.notes.size() == 1);
    CHECK(smooth.notes[0].find("--no-smooth") != std::string::npos);
    smooth.method = "fp16", smooth.wbits = smooth.abits = 4, smooth.notes.clear();  // no such row: nothing to note
    find_published(smooth, config_official("8b"));
    CHECK(smooth.notes.empty());
}

// A number that is not the one of its name's protocol says so above itself.
TEST(columns_say_how_their_numbers_differ) {
    TaskResult t = {"mmlu", "acc", "", 50, 1, 100, 1000, ""};
    CHECK_EQ(result_name(t, false), "mmlu acc");
    t.lm_eval_style = true;
    CHECK_EQ(result_name(t, false), "mmlu acc, lm-eval style");
    t.bf16_scores = true, t.official = false;
    CHECK_EQ(result_name(t, false), "mmlu acc, unofficial set, lm-eval style, bf16 scores");
    CHECK_EQ(result_name(t, true), "mmlu acc, lm-eval style, bf16 scores");  // of the toy, whose row says more
}

// Two of our standard errors, no more and no less.
TEST(a_star_is_two_standard_errors) {
    for (auto [value, star] : {std::pair<double, bool>{20.19, false}, {20.21, true}, {19.81, false}, {19.79, true}}) {
        Report r = example_report();
        r.kl.clear();
        r.tasks = {{"wikitext2", "ppl", "test", value, 0.1, 146, 299008, "20"}};
        const std::string text = report_text(r), difference = format("%+.2f", value - 20);
        CHECK_EQ(text.find(difference + " *\n") != std::string::npos, star);
        CHECK_EQ(text.find(difference + "\n") != std::string::npos, !star);
        CHECK_EQ(text.find("* more than two of our standard errors") != std::string::npos, star);
    }
}

// The unquantized model's numbers are of the paper's own windows and questions: half of the last digit that 12.7 or 20 have, and 0.3 % of a
// perplexity or half a point of an accuracy, whatever the standard error, which is of their draw.
TEST(a_full_precision_number_agrees_in_the_printed_digits) {
    struct Case {
        const char *task, *metric, *paper;
        double value;
        bool stars;
    };
    for (const Case& c : {Case{"wikitext2", "ppl", "12.7", 12.787, false}, {"wikitext2", "ppl", "12.7", 12.789, true}, {"wikitext2", "ppl", "12.7", 12.613, false},
                          {"wikitext2", "ppl", "12.7", 12.611, true}, {"wikitext2", "ppl", "20", 20.559, false}, {"wikitext2", "ppl", "20", 20.561, true},
                          {"piqa", "acc", "75.7", 76.24, false}, {"piqa", "acc", "75.7", 76.26, true}, {"piqa", "acc", "75.7", 75.14, true},
                          {"piqa", "acc", "76", 75.01, false}, {"piqa", "acc", "76", 74.99, true}}) {
        Report r = example_report();
        r.method = "fp16", r.kl.clear();
        r.tasks = {{c.task, c.metric, "test", c.value, 0.4, 146, 299008, c.paper}};
        const std::string text = report_text(r);
        CHECK_EQ(text.find(" **\n") != std::string::npos, c.stars);
        CHECK_EQ(text.find("** further from the paper's number than its printed digits and 0.3 % of a perplexity or 0.5 points") != std::string::npos, c.stars);
        CHECK(text.find("* more than two") == std::string::npos);
    }
}

// One window has no standard error, and no difference of it is significant.
TEST(one_value_has_no_standard_error) {
    Report r = example_report();
    r.tasks = {{"wikitext2", "ppl", "test", 20.5, mean_estimate({20.5}).stderr_, 1, 2048, "18.2"}};
    r.kl.clear();
    const std::string text = report_text(r);
    CHECK(text.find("20.50\n") != std::string::npos && text.find("+2.3\n") != std::string::npos && text.find("+-") == std::string::npos);
    CHECK(report_json(r).find("\"value\": 20.5, \"stderr\": null, \"n\": 1") != std::string::npos);
}

TEST(a_difference_is_paired) {
    const Estimate paired = mean_difference({103, 202, 301}, {100, 200, 300});  // 3, 2, 1, however far the values are apart
    CHECK(paired.value == 2 && paired.n == 3);
    CHECK_NEAR(paired.stderr_, std::sqrt(1.0 / 3), 1e-12);
    CHECK_ERROR(mean_difference({1, 2}, {1}), "found 2 and 1");
}

TEST(report_row_has_the_whole_row) {
    Report r;
    r.model = "Qwen3-1.7B-Base", r.method = "fp16", r.wbits = r.abits = 16, r.group = -1;
    r.paper = paper_row_find("data/paper/tables.csv", r.model, r.method, 16, 16, -1);
    const char* tasks[] = {"piqa", "arc_easy", "arc_challenge", "hellaswag", "winogrande", "boolq", "mmlu"};
    for (int i = 0; i < 7; i++) {
        r.tasks.push_back({tasks[i], "acc", "test", 60.0 + i, 0.6, 100, 1000, r.paper.cell(paper_column(tasks[i]))});
        CHECK(!r.tasks.back().paper.empty());
    }
    r.tasks[0].acc_norm = {{71.5, 0.5, 100}};
    CHECK_NEAR(zero_shot_average(r).value, 62.5, 1e-12);
    CHECK_NEAR(zero_shot_average(r).stderr_, 0.6 / std::sqrt(6.0), 1e-12);
    const std::string text = report_text(r);
    const char* parts[] = {"boolq acc    avg           mmlu acc", "62.50 +-0.24  66.00 +-0.6", "acc_norm", "71.50 +-0.5",
                           "-15.7 **",  // piqa: 60 against the paper's 75.7
                           "-3.1          +5 **",  // the average: 62.5 against 65.6, which is not its row's; mmlu: 66 against 61.0
                           "or 0.5 points of an accuracy", "note on the paper's row: printed avg differs from the mean of its six tasks (63.8)"};
    for (const char* part : parts)
        if (text.find(part) == std::string::npos) fail("the row lacks \"%s\":\n%s", part, text.c_str());
    CHECK(text.find("boolq acc") < text.find("  avg  ") && text.find("  avg  ") < text.find("mmlu acc"));
    const std::string json = report_json(r);
    const Json j = json_parse(json.data(), json.size(), "report");
    CHECK_NEAR(json_number(j, "avg", "report"), 62.5, 1e-9);
    CHECK_NEAR(json_number(j, "paper_avg", "report"), 65.6, 1e-9);
    const Json& piqa = json_object(json_object(j, "results", "report"), "piqa", "results");
    CHECK_EQ(json_number(piqa, "acc_norm", "piqa"), 71.5);
    CHECK_EQ(json_number(piqa, "acc_norm_stderr", "piqa"), 0.5);
    CHECK_EQ(json_number(piqa, "paper", "piqa"), 75.7);
    r.tasks[1].paper = r.paper.cell("arc_e", false);  // of another set: no cell, and so none of the average
    CHECK_EQ(r.tasks[1].paper, "");
    const std::string other = report_json(r);
    CHECK_EQ(json_string(json_parse(other.data(), other.size(), "report"), "paper_avg", "report", "none"), "none");
    r.tasks[1].paper = "1";
    r.tasks.erase(r.tasks.begin() + 2);  // five of six have no average, and the paper's of six stands beside none
    CHECK(report_text(r).find("  avg  ") == std::string::npos);
    CHECK(report_json(r).find("\"paper_avg\": null") != std::string::npos);
    Report text_only = r;
    text_only.tasks = {{"wikitext2", "ppl", "test", 20, 1, 146, 299008, "12.7"}};
    CHECK(report_json(text_only).find("\"paper_avg\": null") != std::string::npos);
    r.limit = 20;
    CHECK(report_text(r).find("Qwen3-1.7B-Base (first 20 only)") != std::string::npos);
    r.model = "mod\u00e8le";  // a letter of two bytes
    const std::string accented = report_text(r);
    const size_t head = accented.find("method"), row = accented.find(r.method, accented.find('\n'));
    CHECK_EQ(row - accented.find('\n') - 1, head + 1);
}

TEST(report_json_parses_and_round_trips) {
    const std::string text = report_json(example_report());
    const Json j = json_parse(text.data(), text.size(), "report");
    CHECK_EQ(json_string(j, "device", "report"), "a \"device\"");
    const Json& results = json_object(j, "results", "report");
    CHECK_EQ(json_number(json_object(results, "wikitext2", "results"), "value", "wikitext2"), 18.25);
    CHECK_EQ(json_number(json_object(results, "c4", "results"), "paper", "c4"), 58100.0);
    CHECK_EQ(json_string(json_object(results, "c4", "results"), "value", "c4"), "NaN");
    CHECK_EQ(json_int(j, "wbits", "report"), 4);
    CHECK(json_array(j, "not_the_papers", "report").empty() && json_bool(json_object(results, "c4", "results"), "official", "c4"));
    Report other = example_report();
    other.not_the_papers = {"--seed", "PRECISION=FP32"}, other.tasks[1].official = false;
    const std::string others = report_json(other);
    CHECK(others.find("\"not_the_papers\": [\"--seed\", \"PRECISION=FP32\"]") != std::string::npos);
    CHECK(others.find("\"variant\": \"drawn\", \"official\": false") != std::string::npos);
    const Json& ppl = json_object(results, "wikitext2", "results");
    CHECK(json_number(ppl, "stderr", "wikitext2") == 0.125 && json_int(ppl, "n", "wikitext2") == 146 && json_int(ppl, "tokens", "wikitext2") == 299008);
    const Json& kl = json_object(json_object(j, "kl", "report"), "wikitext2", "kl");
    CHECK(json_number(kl, "mean", "kl") == 0.25 && json_number(kl, "stderr", "kl") == 0.01 && json_int(kl, "n", "kl") == 146);
    CHECK(json_number(kl, "top1_percent", "kl") == 93.5 && json_number(kl, "top1_stderr", "kl") == 0.5);
    CHECK(!j.find("weights_seed"));
    other.weights_seed = 5, other.data = "a \"folder\"";
    const std::string random = report_json(other);
    const Json drawn = json_parse(random.data(), random.size(), "report");
    CHECK_EQ(json_int(drawn, "weights_seed", "report"), 5);
    CHECK_EQ(json_string(drawn, "data", "report"), other.data);
    for (const char* key : {"options", "calibration", "kl", "modules", "seconds", "peak_bytes", "commit", "stand_in"})
        CHECK(j.find(key) != nullptr);
}
