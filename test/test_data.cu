// test_data.cu: files, CSV, lines, CPython's and NumPy's random numbers.
#include "../data/csv.h"
#include "../data/lines.h"
#include "../data/numpy_random.h"
#include "../data/random.h"
#include "../data/sha256.h"
#include "temp.h"
#include "test.h"
#include <chrono>
#include <map>
#include <sys/wait.h>
#include <unistd.h>

// ---- files ----

TEST(file_mapped) {
    TempFolder tmp;
    write_bytes(tmp / "a", "some bytes");
    write_bytes(tmp / "empty", "");
    MappedFile a(tmp / "a"), empty(tmp / "empty");
    CHECK_EQ(std::string(a.data, a.size), "some bytes");
    CHECK_EQ(empty.size, 0u);
    MappedFile moved(std::move(a));
    CHECK_EQ(std::string(moved.data, moved.size), "some bytes");
    CHECK_EQ(a.size, 0u);
    empty = std::move(moved);
    CHECK_EQ(std::string(empty.data, empty.size), "some bytes");
    CHECK(file_exists(tmp / "a") && !file_exists(tmp / "b") && !file_exists(tmp.path));
    CHECK(is_directory(tmp.path) && !is_directory(tmp / "a"));
    CHECK_ERROR(MappedFile(tmp / "b"), "/b: the file can't be opened: No such file or directory");
    CHECK_ERROR(MappedFile(tmp / "a/b"), "can't be opened: Not a directory");
    CHECK_ERROR(MappedFile(tmp.path), "expected a file, found a directory");
    CHECK_ERROR(MappedFile("/dev/null"), "/dev/null: expected a regular file, found a device or pipe");
}

TEST(file_written) {
    TempFolder tmp;
    write_file(tmp / "a", std::string("x\0y", 3));
    CHECK_EQ(read_bytes(tmp / "a"), std::string("x\0y", 3));
    CHECK_ERROR(write_file(tmp / "no/a", "x"), "/no/a: the file can't be created: No such file or directory");
    CHECK_ERROR(write_file("/dev/full", "x"),
                "/dev/full: writing byte 0 of at least 1 failed: No space left on device");
}

TEST(file_text_without_byte_order_mark) {
    TempFolder tmp;
    write_bytes(tmp / "a", "\xEF\xBB\xBFtext \xEF\xBB\xBF");
    write_bytes(tmp / "b", "\xEF\xBB");
    write_bytes(tmp / "c", "\xEF\xBB\xBF");
    CHECK_EQ(file_text(MappedFile(tmp / "a")).size(), 8u);
    CHECK_EQ(file_text(MappedFile(tmp / "b")).size(), 2u);
    CHECK_EQ(file_text(MappedFile(tmp / "c")).size(), 0u);
    write_bytes(tmp / "a.json", "\xEF\xBB\xBF{\"x\": 7}");
    CHECK_EQ(json_int(json_parse_file(tmp / "a.json"), "x", "a.json"), 7);
    write_bytes(tmp / "a.jsonl", "\xEF\xBB\xBF{\"x\": 7}\n{\"x\": 8}\n");
    LineFile lines(tmp / "a.jsonl");
    CHECK_EQ(json_int(lines.json(0), "x", "a"), 7);
    CHECK_EQ(json_int(lines.json(1), "x", "a"), 8);
    write_bytes(tmp / "a.csv", "\xEF\xBB\xBF\"a,b\",c\n");
    CHECK(csv_parse_file(tmp / "a.csv") == std::vector<CsvRow>({{"a,b", "c"}}));
}

// The stamps of files that other tests have removed are forgotten first.
TEST(files_that_change_while_in_use) {
    TempFolder tmp;
    write_bytes(tmp / "a", "some bytes");
    write_bytes(tmp / "b", "some bytes");
    file_stamps().clear();
    MappedFile a(tmp / "a");
    { MappedFile b(tmp / "b"); }
    files_unchanged_or_fail();
    write_bytes(tmp / "b", "more than some bytes");  // what was closed in time may change
    files_unchanged_or_fail();
    { MappedFile b(tmp / "b"); }  // but not between two looks: the first one counts
    CHECK_ERROR(files_unchanged_or_fail(), "/b: the file changed its size while it was in use, so there is no result. HINT: ");
    file_stamps().erase(tmp / "b");
    files_unchanged_or_fail();
    {
        MappedFile b(tmp / "b");
        write_bytes(tmp / "b", "others");
    }
    CHECK_ERROR(files_unchanged_or_fail(), "/b: the file changed its size");  // it was not closed in time
    file_stamps().erase(tmp / "b");
    std::filesystem::last_write_time(tmp / "a", std::filesystem::file_time_type::clock::now() + std::chrono::seconds(5));
    CHECK_ERROR(files_unchanged_or_fail(), "/a: the file was written to while it was in use");
    std::filesystem::remove(tmp / "a");
    CHECK_ERROR(files_unchanged_or_fail(), "/a: the file went away while it was in use");
    file_stamps().clear();
}

// The least that any group of the process leaves, of control groups as both versions keep them; what files occupy counts as free.
TEST(limits_of_control_groups) {
    TempFolder tmp;
    const auto group = [&](const std::string& folder, const char* limit, const char* used, const std::string& stat, bool v1) {
        std::filesystem::create_directories(tmp / folder);
        write_bytes(tmp / (folder + (v1 ? "/memory.limit_in_bytes" : "/memory.max")), limit);
        write_bytes(tmp / (folder + (v1 ? "/memory.usage_in_bytes" : "/memory.current")), used);
        write_bytes(tmp / (folder + "/memory.stat"), stat);
    };
    const auto free = [&](const char* self) {
        write_bytes(tmp / "self", self);
        return cgroup_free_bytes(tmp / "self", tmp / "fs");
    };
    CHECK_EQ(free("0::/\n"), SIZE_MAX);
    CHECK_EQ(cgroup_free_bytes(tmp / "none", tmp / "fs"), SIZE_MAX);
    group("fs/slurm/job", "1000\n", "700\n", "anon 5\ninactive_file 200\nslab 1\n", false);
    group("fs/slurm", "max\n", "900\n", "", false);
    CHECK_EQ(free("0::/slurm/job\n"), (size_t)500);
    CHECK_EQ(free("0::/slurm/job/step\n"), (size_t)500);  // a group above counts
    CHECK_EQ(free("0::/slurm\n"), SIZE_MAX);
    group("fs", "2000\n", "1900\n", "", false);
    CHECK_EQ(free("0::/slurm/job\n"), (size_t)100);
    group("fs", "2000\n", "2500\n", "", false);
    CHECK_EQ(free("0::/slurm/job\n"), (size_t)0);
    group("fs/memory/a", "5000\n", "4000\n", "inactive_file 1\ntotal_inactive_file 30\n", true);
    CHECK_EQ(free("9:cpu,memory:/a\n8:pids:/slurm\n"), (size_t)1030);
}

// A child process reads a file whose end is cut off: it must end with a sentence and status 1, after its cleaning up.
TEST(a_file_that_becomes_shorter) {
    TempFolder tmp;
    write_bytes(tmp / "a\x1b[2J", std::string(100000, 'a'));
    static std::string cleaned;
    cleaned = tmp / "cleaned";
    int out[2];
    CHECK(pipe(out) == 0);
    fflush(nullptr);
    const pid_t child = fork();
    if (child == 0) {
        dup2(out[1], 2);
        fail_on_lost_files([] { write_bytes(cleaned, "yes"); });
        MappedFile a(tmp / "a\x1b[2J");
        if (truncate(a.path.c_str(), 10) != 0) _exit(7);
        volatile char sum = 0;
        for (size_t i = 0; i < a.size; i += 4096) sum = (char)(sum + a.data[i]);
        _exit(sum == 0 ? 5 : 6);
    }
    close(out[1]);
    std::string text;
    char buffer[512];
    for (ssize_t n; (n = read(out[0], buffer, sizeof buffer)) > 0;) text.append(buffer, (size_t)n);
    close(out[0]);
    int status = 0;
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status));
    CHECK_EQ(WEXITSTATUS(status), 1);
    CHECK_EQ(text.find("qwen3: " + tmp.path + "/a\\x1b[2J: a part of it can't be read any more: it became shorter"), 0u);
    CHECK_EQ(read_bytes(tmp / "cleaned"), "yes");
}

// Messages quote files, and a file may hold anything.
TEST(messages_do_not_steer_the_terminal) {
    CHECK_EQ(printable("caf\u00e9 \u4f60 \U0001f642"), "caf\u00e9 \u4f60 \U0001f642");
    CHECK_EQ(printable("a\x1b[31m\r\n\tb\x7f"), "a\\x1b[31m\\x0d\n\\x09" "b\\x7f");
    CHECK_EQ(printable("\u009b1m"), "\\xc2\\x9b1m");  // a control sequence of eight bits
    CHECK_EQ(printable("\x9b" "1m\xff\xc3"), "\\x9b1m\\xff\\xc3");
    CHECK_EQ(printable(std::string("\0", 1)), "\\x00");
    CHECK_ERROR(fail("%s: no", "\x1b]0;title\x07"), "\\x1b]0;title\\x07: no");
    CHECK_ERROR(usage_fail("%s: no", "\x1b[2J"), "\\x1b[2J: no");
}

// ---- CSV ----

static std::vector<CsvRow> csv(const std::string& text) {
    std::vector<char> exact(text.begin(), text.end());
    return csv_parse(exact.data(), exact.size(), "file.csv");
}

TEST(csv_fields) {
    typedef std::vector<CsvRow> Rows;
    CHECK(csv("") == Rows{});
    CHECK(csv("a,b\nc,d\n") == (Rows{{"a", "b"}, {"c", "d"}}));
    CHECK(csv("a,b\r\nc,d") == (Rows{{"a", "b"}, {"c", "d"}}));
    CHECK(csv("a,\n,b\n,") == (Rows{{"a", ""}, {"", "b"}, {"", ""}}));
    CHECK(csv("a\n\nb\n \t\r\n\n") == (Rows{{"a"}, {"b"}}));  // a line of white space is no row
    CHECK(csv("\n \n\"\"\n\"\n\n\"") == (Rows{{""}, {"\n\n"}}));
    std::vector<size_t> lines;
    const std::string text = "\na,\"b\n\n\"\n\n\nc\nd";
    csv_parse(text.data(), text.size(), "file.csv", &lines);
    CHECK(lines == (std::vector<size_t>{2, 7, 8}));
    CHECK(csv("\"a,b\",\"c\nd\",\"e\r\nf\"\r\ng") == (Rows{{"a,b", "c\nd", "e\r\nf"}, {"g"}}));
    CHECK(csv("\"\"\"a\"\" b\"\"\",\"\",\"\"\"\"\n") == (Rows{{"\"a\" b\"", "", "\""}}));
    CHECK(csv("a\rb,\rc,d\r\n") == (Rows{{"a\rb", "\rc", "d"}}));
    CHECK(csv("a\r") == (Rows{{"a\r"}}));
    CHECK(csv(" a , \xC3\xA9 \n") == (Rows{{" a ", " \xC3\xA9 "}}));
}

TEST(csv_errors) {
    CHECK_ERROR(csv("a,b\n\"c\nd"), "file.csv:2: broken CSV: the quote that opens here is never closed");
    CHECK_ERROR(csv("\""), "file.csv:1: broken CSV: the quote that opens here is never closed");
    CHECK_ERROR(csv("\"a\"\"\n"), "file.csv:1: broken CSV: the quote that opens here is never closed");
    CHECK_ERROR(csv("a\n\"x\ny\"b\n"),
                "file.csv:3: broken CSV: expected a comma or the end of the line after a closing");
    CHECK_ERROR(csv("\"a\" ,b"), "after a closing quote");
    CHECK_ERROR(csv("\"a\"\r,b"), "after a closing quote");
    CHECK_ERROR(csv("a\nb\"c\"\n"), "file.csv:2: broken CSV: a quote in the middle of a field");
    CHECK_ERROR(csv("a\nb\n\xE9t\xE9\n"), "file.csv:3: broken CSV: expected UTF-8");
    TempFolder tmp;
    CHECK_ERROR(csv_parse_file(tmp / "none.csv"), "/none.csv: the file can't be opened");
    write_bytes(tmp / "bad.csv", "\"");
    CHECK_ERROR(csv_parse_file(tmp / "bad.csv"), "/bad.csv:1: broken CSV");
}

// Counts and an FNV-1a hash over all cells, each closed with 0x1F, as Python's csv module gives them.
TEST(csv_mmlu) {
    const std::string mmlu = shared_data() + "/mmlu/";
    struct {
        const char* split;
        size_t rows, with_newline, with_quote;
        uint64_t hash;
    } expected[] = {{"test", 14042, 1127, 1346, 0x51437e613a806319}, {"dev", 285, 32, 23, 0xa83659c95a83026b}};
    size_t with_cr = 0;
    for (const auto& e : expected) {
        std::map<std::string, int> files;  // in order
        for (const auto& f : std::filesystem::directory_iterator(mmlu + e.split)) files[f.path().string()] = 1;
        CHECK_EQ(files.size(), 57u);
        size_t rows = 0, with_newline = 0, with_quote = 0;
        uint64_t hash = 0xcbf29ce484222325;
        for (const auto& f : files) {
            for (const CsvRow& row : csv_parse_file(f.first)) {
                rows++;
                CHECK_EQ(row.size(), 6u);
                CHECK(row[5] == "A" || row[5] == "B" || row[5] == "C" || row[5] == "D");
                bool newline = false, quote = false;
                for (const std::string& cell : row) {
                    newline |= cell.find('\n') != std::string::npos;
                    quote |= cell.find('"') != std::string::npos;
                    with_cr += cell.find('\r') != std::string::npos;
                    for (char c : cell + '\x1f') hash = (hash ^ (unsigned char)c) * 0x100000001b3;
                }
                with_newline += newline;
                with_quote += quote;
            }
        }
        CHECK_EQ(rows, e.rows);
        CHECK_EQ(with_newline, e.with_newline);
        CHECK_EQ(with_quote, e.with_quote);
        CHECK_EQ(hash, e.hash);
    }
    CHECK_EQ(with_cr, 1u);
}

// ---- lines ----

TEST(lines_of_a_file) {
    TempFolder tmp;
    write_bytes(tmp / "a", "one\n\nthree\r\n \t\r\n four");
    LineFile a(tmp / "a");
    CHECK_EQ(a.count(), 3u);  // lines of white space are none, but they count in names
    CHECK_EQ(a.line(0), "one");
    CHECK_EQ(a.line(1), "three");
    CHECK_EQ(a.line(2), " four");
    CHECK_EQ(a.name(2), tmp / "a" + ":5");
    CHECK_ERROR(a.line(3), "/a: line 4 was asked for, the file has 3");
    LineFile moved = std::move(a);
    CHECK_EQ(moved.line(2), " four");
    write_bytes(tmp / "b", "x\n");
    CHECK_EQ(LineFile(tmp / "b").count(), 1u);
    write_bytes(tmp / "c", "\n\n");
    CHECK_EQ(LineFile(tmp / "c").count(), 0u);
    write_bytes(tmp / "d", "");
    CHECK_EQ(LineFile(tmp / "d").count(), 0u);
    CHECK_ERROR(LineFile(tmp / "none"), "/none: the file can't be opened");
}

TEST(lines_of_json) {
    TempFolder tmp;
    write_bytes(tmp / "a.jsonl", "{\"text\":\"x\"}\r\n{\"text\": \xE9}\n\n{\"text\":1\n{\"text\":2}");
    LineFile a(tmp / "a.jsonl");
    CHECK_EQ(json_string(a.json(0), "text", a.name(0)), "x");
    CHECK_ERROR(a.json(1), "/a.jsonl:2: broken JSON at column 10: expected UTF-8, found byte 0xE9");
    CHECK_ERROR(a.json(2), "/a.jsonl:4: broken JSON at column 10: expected ',' or '}'");
    CHECK_ERROR(json_string(a.json(3), "text", a.name(3)), "/a.jsonl:5: \"text\" should be a string");
}

TEST(lines_real_sets) {
    const std::string data = shared_data();
    struct {
        const char* path;
        size_t lines;
    } expected[] = {{"/hellaswag/hellaswag_val.jsonl", 10042}, {"/piqa/valid.jsonl", 1838},
                    {"/arc/ARC-Easy-Test.jsonl", 2376},        {"/arc/ARC-Challenge-Test.jsonl", 1172},
                    {"/winogrande/dev.jsonl", 1267},           {"/boolq/val.jsonl", 3270},
                    {"/hellaswag/raw_subset_1000.jsonl", 1000}};
    for (const auto& e : expected) {
        LineFile file(data + e.path);
        CHECK_EQ(file.count(), e.lines);
        for (size_t i = 0; i < file.count(); i++) CHECK(file.json(i).type == Json::OBJECT);
    }
    CHECK_EQ(LineFile(data + "/wikitext2/wiki.test.raw").count(), 2891u);  // of 4358: grep -c '[^[:space:]]'
    LineFile c4(data + "/c4/validation.jsonl");
    for (size_t i = 0; i < c4.count(); i++) CHECK(!json_string(c4.json(i), "text", c4.name(i)).empty());
}

// ---- random numbers: every expected value was printed by CPython 3.11 ----

TEST(random_like_cpython) {
    struct {
        uint64_t seed;
        uint32_t words[3];
        uint64_t bits[5];  // of 1, 7, 33, 53 and 64 bits
        int64_t documents[4], small[6], large, huge;
        double real[2];
    } expected[] = {
        {0,
         {3626764237, 1654615998, 3255389356},
         {1, 53, 173879092, 4605153980757242, 7469716379221213669},
         {19877, 31234, 23465, 38232},
         {-2, 3, -3, -1, -3, -4},
         878829203004,
         600692970284720490,
         {0.9827854760376531, 0.8102172359965896}},
        {1,
         {577090037, 2444712010, 3639700191},
         {1, 97, 271041745, 4462480116935561, 8291646586825371460},
         {30949, 42702, 24878, 13759},
         {-4, 2, -5, 1, 1, 4},
         845087558021,
         3612478816373048742,
         {0.4453871940548014, 0.7215400323407826}},
        {42,
         {2746317213, 478163327, 107420369},
         {1, 35, 1051802512, 6633543228244457, 12482902213779070887u},
         {35741, 5697, 38698, 27651},
         {-5, -5, -4, -2, -2, 3},
         28355454532,
         -5555464839764262490,
         {0.7160196129224035, 0.7013249735902359}},
        {2147483648,
         {1455117090, 1620553392, 2169224728},
         {1, 113, 3836444491, 1011385923797917, 12774407012922156784u},
         {8059, 21747, 22547, 9836},
         {2, -4, 4, 3, 1, -3},
         374966656468,
         3819332989281487309,
         {0.6767985056445157, 0.951828357452302}},
        {123456789012345,
         {2896848117, 946991832, 1255537387},
         {0, 28, 7649310583, 1037208303128505, 12528141420063695613u},
         {12461, 30264, 8682, 17769},
         {4, 5, -1, -2, 2, 3},
         188354943423,
         -7446500030683170905,
         {0.625488575413357, 0.9697861494445839}},
        {18446744073709551615u,
         {93740670, 1068495656, 1452108352},
         {1, 27, 6253746770, 8282758939087230, 6844557653115116486},
         {3562, 12618, 34890, 30782},
         {5, -4, 0, 2, -1, -1},
         41187306643,
         -3789060558529314356,
         {0.29622459226261855, 0.5727680421668039}},
    };
    const int widths[5] = {1, 7, 33, 53, 64};
    for (const auto& e : expected) {
        PythonRandom random(e.seed);
        for (uint32_t word : e.words) CHECK_EQ(random.getrandbits(32), word);
        for (int i = 0; i < 5; i++) CHECK_EQ(random.getrandbits(widths[i]), e.bits[i]);
        for (int64_t document : e.documents) CHECK_EQ(random.randint(0, 45575), document);
        for (int64_t n : e.small) CHECK_EQ(random.randint(-5, 5), n);
        CHECK_EQ(random.randint(0, 1000000000000), e.large);
        CHECK_EQ(random.randint(INT64_MIN, (int64_t)1 << 62), e.huge);
        for (double x : e.real) CHECK_EQ(random.random(), x);
    }
    PythonRandom random(7);
    for (int i = 0; i < 10000; i++) random.getrandbits(32);
    CHECK_EQ(random.getrandbits(32), 4122213605u);
}

// The paper's first accepted C4 document is the first draw of seed 0 among 45,576.
TEST(random_c4_documents) {
    PythonRandom random(0);
    const int64_t expected[] = {25247, 27562, 2653, 16968, 33506, 31845, 26537, 19877};
    for (int64_t document : expected) CHECK_EQ(random.randint(0, 45576 - 1), document);
}

TEST(random_errors) {
    PythonRandom random(0);
    CHECK_ERROR(random.randint(3, 2), "randint: expected a <= b, got 3 and 2");
    CHECK_ERROR(random.randint(INT64_MIN, INT64_MAX), "2^64 integers");
    CHECK_ERROR(random.getrandbits(0), "expected 1 to 64 bits, got 0");
    CHECK_ERROR(random.getrandbits(65), "expected 1 to 64 bits, got 65");
    CHECK_EQ(random.randint(9, 9), 9);
}

// NumPy's, printed by NumPy.
TEST(permutations_are_those_of_numpy) {
    uint64_t words[4];
    NumpyRandom::seed_sequence(42, words);  // SeedSequence(42).generate_state(4, uint64)
    const uint64_t expected_words[] = {0x9f1e2e6dcd540ab7, 0xd57873dc79fb94b6, 0x7d282a1b64d420b7, 0x336579714692d5ff};
    for (int i = 0; i < 4; i++) CHECK_EQ(words[i], expected_words[i]);
    NumpyRandom random(42);  // default_rng(42).bit_generator.random_raw(4)
    for (uint64_t expected : {14276969152011380360ull, 8095878257575067585ull, 15838336090824644132ull, 12864169557245331597ull})
        CHECK_EQ(random.bits64(), expected);
    // default_rng(seed).permutation(n): its first elements, and the sha256 of all of them as int64.
    struct Case {
        uint64_t seed;
        size_t n;
        std::vector<uint32_t> first;
        const char* digest;
    };
    const Case cases[] = {
        {42, 10, {5, 6, 0, 7, 3, 2, 4, 9}, "fdf187163ab550a0b125e487a461454c9c5f334581665d9710665ba747a3a509"},
        {42, 1128, {670, 547, 1088, 100, 540, 198, 297, 128}, "ca9458b4a7c1c898dbe030ec992f7a954be180795ddee2da278d23babad574f8"},
        {42, 356317, {193541, 151745, 272016, 315603, 350671, 135860, 125853, 231200}, "724f18048c2e989f76eae6b49f2fab70389896b76d486d6c2cc87c3490a5e658"},
        {0, 5, {2, 4, 3, 0, 1}, "17462966d8ec9fea166c8bd9eb5528f288d86432a482d8fb221a8dd875d95ebc"},
        {(1ull << 40) + 7, 1000, {795, 479, 354, 691, 160, 811, 209, 310}, "8829b397f411a73951aeb11913059aecd55f9973e042391669c21365d51a9b4b"},
        {42, 1, {0}, "af5570f5a1810b7af78caf4bc70a660f0df51e42baf91d4de5b2328de0e83dfc"}};
    for (const Case& c : cases) {
        const std::vector<uint32_t> order = numpy_permutation(c.seed, c.n);
        for (size_t i = 0; i < c.first.size(); i++) CHECK_EQ(order[i], c.first[i]);
        const std::vector<int64_t> wide(order.begin(), order.end());
        CHECK_EQ(sha256_hex(wide.data(), wide.size() * sizeof(int64_t)), c.digest);
    }
    CHECK(numpy_permutation(42, 0).empty());
}
