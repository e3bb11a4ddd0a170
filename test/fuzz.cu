// fuzz.cu: every reader of files, under libFuzzer with AddressSanitizer and UndefinedBehaviorSanitizer (clang). `make fuzz` runs them all.
//     fuzz READER FOLDER...   one reader, from and to the inputs in FOLDER; libFuzzer's options may follow. A file instead of a folder
//                             runs that one input again
//     fuzz readers            their names
//     fuzz seeds FOLDER       what to begin with: FOLDER/READER/N, and FOLDER/READER.words, libFuzzer's dictionary
//
// A reader may do two things with an input: read it, or throw the sentence that fail() throws. Everything else is a finding: a crash, an
// error of the standard library's, a second of computing, an allocation of 256 MiB, and a result that breaks what the reader promises.
// Where a reader has several files, one input holds them all, with zero bytes between.
#include <ctime>
#include <functional>
#include <typeinfo>
#include "../cuda/device.cuh"
#include "../data/config.h"
#include "../data/quantized.h"
#include "../data/save.h"
#include "../data/token_ids.h"
#include "../eval/mmlu.h"
#include "../eval/perplexity.h"
#include "../eval/report.h"
#include "temp.h"

typedef std::vector<std::string> Texts;

[[noreturn]] static void finding(const std::string& what) {
    fprintf(stderr, "FINDING: %s\n", what.c_str());
    abort();
}
static void promise(bool kept, const char* what) {
    if (!kept) finding(std::string("not true: ") + what);
}

// What is tried may fail, but only with a sentence: not empty, no longer than a screen, nothing that steers a terminal but line ends.
static void attempt(const std::function<void()>& what) {
    try {
        what();
    } catch (const std::exception& e) {
        const std::string message = e.what();
        if (typeid(e) != typeid(std::runtime_error) && typeid(e) != typeid(UsageError))
            finding(std::string(typeid(e).name()) + " instead of a sentence: " + message);
        promise(!message.empty() && message.size() < 10000, "an error is one sentence");
        for (unsigned char c : message) promise((c >= 0x20 && c != 0x7F) || c == '\n', "an error holds no control characters");
    }
}

static const std::string& folder() {
    static const TempFolder all;
    return all.path;
}
static std::string put(const std::string& name, const std::string& bytes) {
    const std::string path = folder() + "/" + name;
    std::filesystem::create_directories(path.substr(0, path.rfind('/')));
    write_bytes(path, bytes);
    return path;
}

// The input as n files; the last one has what is left, and may hold zero bytes.
static Texts files_of(const std::string& input, size_t n) {
    Texts files;
    size_t at = 0;
    while (files.size() + 1 < n) {
        const size_t stop = std::min(input.find('\0', at), input.size());
        files.push_back(input.substr(at, stop - at));
        at = std::min(stop + 1, input.size());
    }
    files.push_back(input.substr(at));
    return files;
}
static std::string together(const Texts& files) {
    std::string input;
    for (size_t i = 0; i < files.size(); i++) input += (i ? std::string(1, '\0') : "") + files[i];
    return input;
}

// A file of the project; only its first lines, where n is given.
static std::string bytes_of(const std::string& path) { return read_bytes(path); }
static std::string lines_of(const std::string& path, int n) {
    const std::string all = read_bytes(path);
    size_t stop = 0;
    while (n-- > 0 && stop < all.size()) stop = std::min(all.find('\n', stop), all.size() - 1) + 1;
    return all.substr(0, stop);
}
static std::string golden(const std::string& path) { return bytes_of("test/golden/" + path); }

static const Tokenizer& tiny_tokenizer() {
    static const Tokenizer t = tokenizer_load("data/tiny");
    return t;
}

// ---------------------------------------------------------------------------------------------------------------------
// The readers

static void check_tokenizer(const Tokenizer& t, const std::string& text) {
    const std::vector<int> ids = tokenizer_encode(t, text);
    for (int id : ids) promise(id >= 0 && (size_t)id < tokenizer_size(t), "ids are those of tokens");
    tokenizer_decode(t, ids);
}

static void check_tensors(const std::vector<TensorView>& tensors) {
    float values[64];
    for (const TensorView& t : tensors) {
        promise(t.n_bytes == tensor_size(t) * dtype_size(t.dtype), "a tensor's bytes are those of its values");
        const size_t n = std::min<size_t>(tensor_size(t), 64);
        attempt([&] { tensor_to_f32(t, 0, n, values); });
        attempt([&] { tensor_to_f32(t, tensor_size(t) - n, n, values); });
    }
}

static void read_json(const std::string& input) {
    const std::vector<char> bytes(input.begin(), input.end());  // no zero behind the last one: AddressSanitizer sees who reads on
    attempt([&] {
        const Json value = json_parse(bytes.data(), bytes.size(), "input");
        const std::string text = json_write(value);
        promise(json_write(json_parse(text.data(), text.size(), "what was written")) == text, "what is written reads back the same");
    });
}

static void read_safetensors(const std::string& input) {
    const std::vector<unsigned char> bytes(input.begin(), input.end());
    attempt([&] { check_tensors(safetensors_parse(bytes.data(), bytes.size(), "input")); });
}

static void read_checkpoint(const std::string& input) {
    const Texts files = files_of(input, 2);
    put("checkpoint/model.safetensors.index.json", files[0]);
    put("checkpoint/a.safetensors", files[1]);
    attempt([&] {
        const Checkpoint ck = checkpoint_open(folder() + "/checkpoint");
        check_tensors(ck.tensors);
        checkpoint_get(ck, "model.norm.weight", {8});
    });
}

static void read_csv(const std::string& input) {
    const std::vector<char> bytes(input.begin(), input.end());
    attempt([&] {
        for (const CsvRow& row : csv_parse(bytes.data(), bytes.size(), "input")) promise(!row.empty(), "a row has fields");
    });
    attempt([&] {
        const PaperRow row = paper_row_find(put("tables.csv", input), "Qwen3-0.6B", "rtn", 4, 16, 128);
        for (const auto& cell : row.cells) attempt([&] { paper_number(cell.second); });
    });
}

static void read_lines(const std::string& input) {
    attempt([&] {
        const LineFile file(put("lines.jsonl", input));
        for (size_t i = 0; i < file.count(); i++) {
            promise(file.line(i).find('\n') == std::string_view::npos, "a line holds no line end");
            attempt([&] { file.json(i); });
        }
    });
}

// The first byte chooses the task.
static void read_questions(const std::string& input) {
    if (input.empty()) return;
    const ChoiceTask& task = CHOICE_TASKS[(unsigned char)input[0] % std::size(CHOICE_TASKS)];
    const Texts files = files_of(input.substr(1), 2);
    put(task.file, files[0]);
    if (task.labels) put(task.labels, files[1]);
    attempt([&] {
        const QuestionSet set = choice_set(task.name, folder(), 0);
        const std::vector<Request> requests = question_requests(tiny_tokenizer(), set);
        const Trie trie = trie_build(requests, 256);
        question_result(set, request_scores(trie, std::vector<float>(trie.targets.size(), -1), false));
    });
}

static void read_mmlu(const std::string& input) {
    const Texts files = files_of(input, 2);
    put("mmlu/dev/anatomy_dev.csv", files[0]);
    put("mmlu/test/anatomy_test.csv", files[1]);
    for (const char* style : {"paper", "lm-eval"}) attempt([&] {
        const QuestionSet set = mmlu_set(tiny_tokenizer(), folder(), style, 0);
        const std::vector<double> hits(set.questions.size(), 100);
        NamedEstimates subjects, categories;
        mmlu_parts(set, hits, subjects, categories);
        trie_build(question_requests(tiny_tokenizer(), set), 256);
    });
}

static void read_texts(const std::string& input) {
    const Texts files = files_of(input, 2);
    put("wikitext2/wiki.test.raw", files[0]), put("wikitext2/wiki.train.raw", files[0]);
    put("c4/validation.jsonl", files[1]), put("c4/train.jsonl", files[1]);
    const Tokenizer& t = tiny_tokenizer();
    attempt([&] { wikitext2_set(t, folder(), 0); });
    attempt([&] { c4_set(t, folder(), "data/paper/c4_windows.csv", 1); });
    for (const char* name : {"wikitext2", "c4"}) attempt([&] {
        promise(calibration_set(t, folder(), name, 3, 16, 0).tokens.size() == 48, "samples are as many and as long as asked for");
    });
    attempt([&] { awq_calibration_set(t, folder(), 4, 16); });
}

static void read_tokenizer(const std::string& input) {
    const Texts files = files_of(input, 3);
    put("tokenizer/tokenizer.json", files[0]);
    put("tokenizer/tokenizer_config.json", files[1]);
    attempt([&] { check_tokenizer(tokenizer_load(folder() + "/tokenizer"), files[2]); });
}

static void read_vocabulary(const std::string& input) {
    const Texts files = files_of(input, 4);
    put("pair/vocab.json", files[0]);
    put("pair/merges.txt", files[1]);
    put("pair/tokenizer_config.json", files[2]);
    attempt([&] { check_tokenizer(tokenizer_load(folder() + "/pair"), files[3]); });
}

// The first byte chooses the tokenizer. Where it has a token for every byte, ids stand for the text, normalized.
static void read_text(const std::string& input) {
    static const Tokenizer all[] = {tokenizer_load("data/tiny"), tokenizer_load("test/golden/tokenizer/llama"),
                                    tokenizer_load("test/golden/tokenizer/smollm"), tokenizer_load("test/golden/tokenizer/gpt2")};
    if (input.empty()) return;
    const Tokenizer& t = all[(unsigned char)input[0] % std::size(all)];
    const std::string text = input.substr(1);
    const std::vector<char> bytes(text.begin(), text.end());
    attempt([&] {
        const std::string decoded = tokenizer_decode(t, tokenizer_encode(t, bytes.data(), bytes.size()));
        const bool all_bytes = std::find(t.byte_id, t.byte_id + 256, -1) == t.byte_id + 256;
        if (all_bytes && text.find('<') == std::string::npos)
            promise(decoded == (t.nfc ? unicode_nfc(text.data(), text.size()) : text), "ids stand for the text");
    });
}

static void read_config(const std::string& input) {
    const std::string path = put("model/config.json", input);
    attempt([&] { quantization_format(json_parse_file(path), path); });
    attempt([&] {
        const Config c = config_load(path);
        const size_t QKV = ((size_t)c.H + 2 * (size_t)c.KV) * c.D;
        promise(QKV <= 1 << 22 && c.H % c.KV == 0 && c.L > 0 && c.rope_theta > 0, "a shape is one that a model can have");
        const Config saved = config_load(put("saved/config.json", saved_config(folder() + "/model", "bfloat16", c.tied)));
        promise(config_json(saved, "bfloat16") == config_json(c, "bfloat16"), "the saved config.json says the same");
    });
}

// The first two bytes are the shape of a linear X, less one each; its config.json and its tensors follow.
static void read_packed(const std::string& input) {
    if (input.size() < 2) return;
    const size_t O = (unsigned char)input[0] + 1, I = (unsigned char)input[1] + 1;
    const Texts files = files_of(input.substr(2), 2);
    const std::string config = put("packed/config.json", files[0]);
    put("packed/model.safetensors", files[1]);
    attempt([&] {
        const QuantFormat f = quantization_format(json_parse_file(config), config);
        const Checkpoint ck = checkpoint_open(folder() + "/packed");
        const QuantizedLinear q = quantized_find(ck, f, "X", O, I);
        std::vector<float> whole(O * I), row(I);
        quantized_to_f32(q, 0, O, whole.data());
        quantized_to_f32(q, O - 1, 1, row.data());
        promise(memcmp(row.data(), &whole[(O - 1) * I], I * sizeof(float)) == 0, "a row by itself is the one among all");
        if (!q.quantized || f.kind == QuantFormat::FP8) return;
        for (float w : whole) promise(!std::isnan(w), "finite scales give numbers");
    });
}

static void read_ids(const std::string& input) {
    attempt([&] {
        for (int id : read_token_ids(put("ids.txt", input), 2048)) promise(id >= 0 && id < 2048, "ids are below V");
    });
}

// ---------------------------------------------------------------------------------------------------------------------
// What they begin with

static Texts json_seeds() {
    return {"[1e5, -0.25, 0, 9223372036854775807, \"\\ud83d\\ude00\\n\\u0000 \xC3\xA9\", [], {}, null, true, false]",
            bytes_of("data/tiny/config.json"), bytes_of("data/tiny/tokenizer_config.json"), lines_of("data/tiny/arc/ARC-Easy-Test.jsonl", 1),
            lines_of("data/tiny/hellaswag/hellaswag_val.jsonl", 1), golden("checkpoints/f16_untied_sharded/model.safetensors.index.json")};
}
static std::string small_safetensors() {
    const std::string path = folder() + "/small.safetensors";
    SafetensorsWriter writer(path, {{"model.norm.weight", "BF16", {8}}, {"a", "F32", {2, 3}}, {"b", "F16", {0}}, {"c", "I64", {}}});
    const std::string bytes(64, '\x3F');
    writer.write("model.norm.weight", bytes.data(), 16), writer.write("a", bytes.data(), 24), writer.write("c", bytes.data(), 8);
    writer.finish();
    return bytes_of(path);
}
static Texts safetensors_seeds() { return {small_safetensors(), golden("checkpoints/f16_untied_sharded/model-00003-of-00003.safetensors")}; }
static Texts checkpoint_seeds() {
    std::string map;
    for (const char* name : {"model.norm.weight", "a", "b", "c"}) map += (map.empty() ? "" : ", ") + json_quote(name) + ": \"a.safetensors\"";
    return {together({"{\"metadata\": {\"total_size\": 48}, \"weight_map\": {" + map + "}}", small_safetensors()})};
}
static Texts csv_seeds() {
    return {"a,\"b \"\"c\"\"\",\r\n\"two\nlines\",,1\n", lines_of("data/tiny/mmlu/test/great_lives_test.csv", 3),
            lines_of("data/paper/tables.csv", 12), lines_of("data/paper/c4_windows.csv", 4)};
}
static Texts lines_seeds() { return {lines_of("data/tiny/piqa/valid.jsonl", 3), "\xEF\xBB\xBF{\"text\": \"a\"}\r\n \n[1]"}; }
static Texts questions_seeds() {
    Texts seeds;
    for (size_t i = 0; i < std::size(CHOICE_TASKS); i++)
        for (const std::string& dir : {std::string("data/tiny/"), std::string("test/golden/prompts/edge/")}) {
            const ChoiceTask& task = CHOICE_TASKS[i];
            if (!file_exists(dir + task.file)) continue;
            seeds.push_back((char)i + together({lines_of(dir + task.file, 3), task.labels ? lines_of(dir + task.labels, 3) : ""}));
        }
    return seeds;
}
static Texts mmlu_seeds() {
    return {together({bytes_of("data/tiny/mmlu/dev/great_lives_dev.csv"), lines_of("data/tiny/mmlu/test/great_lives_test.csv", 3)})};
}
static Texts texts_seeds() {
    return {together({lines_of("data/tiny/wikitext2/wiki.test.raw", 5), lines_of("data/tiny/c4/validation.jsonl", 2)})};
}
static Texts tokenizer_seeds() {
    Texts seeds;
    for (const char* name : {"qwen", "llama", "smollm", "gpt2"})
        seeds.push_back(together({golden("tokenizer/" + std::string(name) + "/tokenizer.json"),
                                  bytes_of("data/tiny/tokenizer_config.json"), "The 12 don't's \xC3\xA9\n\n <|im_start|>"}));
    return seeds;
}
static Texts vocabulary_seeds() {
    const std::string dir = "tokenizer/pair/";
    return {together({golden(dir + "vocab.json"), golden(dir + "merges.txt"), golden(dir + "tokenizer_config.json"), "The 12 don't's\n"})};
}
static Texts text_seeds() {
    Texts seeds;
    for (char tokenizer = 0; tokenizer < 4; tokenizer++) {
        seeds.push_back(tokenizer + lines_of("data/tiny/wikitext2/wiki.test.raw", 4));
        seeds.push_back(tokenizer + std::string("We'LL 1234 e\xCC\x81\xE1\x84\x80\xE1\x85\xA1 \xF0\x9F\x98\x80\r\n\t  \xC2\xA0x <|im_end|>"));
    }
    return seeds;
}
static Texts config_seeds() {
    Texts seeds = {bytes_of("data/tiny/config.json")};
    for (const char* name : {"qwen3_tied", "qwen2_bias", "llama", "llama3_scaling", "checkpoints/bf16_tied"})
        seeds.push_back(golden(std::string(name) + "/config.json"));
    seeds.push_back("{\"torch_dtype\": null, \"eos_token_id\": [1, 2], \"aux\": {\"dtype\": 1.50}, " + seeds[0].substr(seeds[0].find('"')));
    const Json formats = json_parse_file("test/golden/packed/formats.json");
    for (const auto& format : formats.object) seeds.push_back("{\"quantization_config\": " + json_write(format.second) + "}");
    return seeds;
}
// The golden linears, each by itself as X.
static Texts packed_seeds() {
    const Checkpoint packed = safetensors_open("test/golden/packed/packed.safetensors"),
                     plain = safetensors_open("test/golden/packed/plain.safetensors");
    const Json formats = json_parse_file("test/golden/packed/formats.json");
    Texts seeds;
    for (const auto& format : formats.object) {
        const std::string& name = format.first;
        const TensorView *codes = checkpoint_find(plain, name + ".codes"), *weights = checkpoint_find(plain, name + ".weights");
        const std::vector<size_t>& shape = (codes ? codes : weights)->shape;
        std::vector<const TensorView*> tensors;
        std::vector<TensorSpec> specs;
        for (const TensorView& t : packed.tensors)
            if (t.name.rfind(name + ".", 0) == 0) tensors.push_back(&t), specs.push_back({"X" + t.name.substr(name.size()), t.dtype, t.shape});
        const std::string path = folder() + "/seed.safetensors";
        SafetensorsWriter writer(path, specs);
        for (size_t i = 0; i < specs.size(); i++) writer.write(specs[i].name, tensors[i]->data, tensors[i]->n_bytes);
        writer.finish();
        seeds.push_back(std::string(1, (char)(shape[0] - 1)) + (char)(shape[1] - 1) +
                        together({"{\"quantization_config\": " + json_write(format.second) + "}", bytes_of(path)}));
    }
    return seeds;
}
static Texts ids_seeds() { return {"0\n17\r\n2047\n", "\xEF\xBB\xBF" "1\n\n2"}; }

struct Reader {
    const char* name;
    int longest;  // input, bytes
    void (*read)(const std::string&);
    Texts (*seeds)();
};
static const Reader READERS[] = {{"json", 16384, read_json, json_seeds},
                                 {"safetensors", 32768, read_safetensors, safetensors_seeds},
                                 {"checkpoint", 16384, read_checkpoint, checkpoint_seeds},
                                 {"csv", 16384, read_csv, csv_seeds},
                                 {"lines", 16384, read_lines, lines_seeds},
                                 {"questions", 16384, read_questions, questions_seeds},
                                 {"mmlu", 16384, read_mmlu, mmlu_seeds},
                                 {"texts", 16384, read_texts, texts_seeds},
                                 {"tokenizer", 65536, read_tokenizer, tokenizer_seeds},
                                 {"vocabulary", 65536, read_vocabulary, vocabulary_seeds},
                                 {"text", 65536, read_text, text_seeds},
                                 {"config", 8192, read_config, config_seeds},
                                 {"packed", 65536, read_packed, packed_seeds},
                                 {"ids", 4096, read_ids, ids_seeds}};

// Every reader's seeds, and the words in quotes that are in them, in libFuzzer's spelling.
static void write_seeds(const std::string& to) {
    for (const Reader& reader : READERS) {
        std::filesystem::create_directories(to + "/" + reader.name);
        std::set<std::string> words;
        int n = 0;
        for (const std::string& seed : reader.seeds()) {
            write_bytes(to + "/" + reader.name + format("/%d", n++), seed.substr(0, reader.longest));
            for (size_t at = 0; (at = seed.find('"', at)) != std::string::npos && words.size() < 1000; at++) {
                const size_t stop = std::min(seed.find('"', at + 1), seed.size());
                if (stop - at > 2 && stop - at < 40) words.insert(seed.substr(at, stop + 1 - at));
            }
        }
        std::string dictionary;
        for (const std::string& word : words) {
            dictionary += "\"";
            for (unsigned char c : word) dictionary += format("\\x%02x", c);
            dictionary += "\"\n";
        }
        write_bytes(to + "/" + reader.name + ".words", dictionary);
    }
}

static const Reader* chosen = nullptr;

// libFuzzer calls this first, with its own arguments. The reader's name is taken out, its limits are put in.
extern "C" int LLVMFuzzerInitialize(int* argc, char*** argv) {
    const std::string word = *argc > 1 ? (*argv)[1] : "";
    for (const Reader& reader : READERS) {
        if (word == "readers") puts(reader.name);
        if (word == reader.name) chosen = &reader;
    }
    if (word == "seeds" && *argc > 2) write_seeds((*argv)[2]);
    if (!chosen) exit(word == "readers" || word == "seeds" ? 0 : (fprintf(stderr, "fuzz: expected the name of a reader\n"), 2));
    static std::vector<std::string> words = {format("-max_len=%d", chosen->longest), "-rss_limit_mb=1024", "-malloc_limit_mb=256",
                                             "-timeout=20"};
    static std::vector<char*> pointers = {(*argv)[0]};
    for (std::string& w : words) pointers.push_back(&w[0]);
    for (int i = 2; i < *argc; i++) pointers.push_back((*argv)[i]);
    *argc = (int)pointers.size();
    pointers.push_back(nullptr);
    *argv = pointers.data();
    return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t n) {
    const std::clock_t start = std::clock();
    chosen->read(std::string((const char*)bytes, n));
    const double seconds = double(std::clock() - start) / CLOCKS_PER_SEC;  // of computing: the machine may be busy
    if (seconds > 1) finding(format("%zu bytes took %.1f s", n, seconds));
    return 0;
}
