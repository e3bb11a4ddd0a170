// Prompts of the multiple-choice tasks: texts and token ids against test/golden/prompts (scripts/golden/golden_prompts.py, the
// same rules written down a second time in Python, with Hugging Face `tokenizers`), on hand-made rows full of traps, on
// the bundled sets and, where they are, on the real ones; and what broken sets are refused with.
#include "../data/sha256.h"
#include "../eval/mmlu.h"
#include "temp.h"
#include "test.h"
#include <map>

static const std::string golden = "test/golden/prompts/";
static const std::vector<std::string> choice_tasks = {"piqa",      "arc_easy",   "arc_challenge",
                                                      "hellaswag", "winogrande", "boolq"};

static const Tokenizer& tiny_tokenizer() {
    static const Tokenizer t = tokenizer_load("data/tiny");
    return t;
}

// The questions of a task of the reference: "mmlu_lm_eval" is MMLU in lm-eval's style.
static QuestionSet question_set(const Tokenizer& t, const std::string& task, const std::string& data,
                                size_t limit = 0) {
    if (task == "mmlu") return mmlu_set(t, data, "paper", limit);
    return task == "mmlu_lm_eval" ? mmlu_set(t, data, "lm-eval", limit) : choice_set(task, data, limit);
}

// The requests that question `row` becomes; for a moment it is the set's only one.
static std::vector<Request> requests_of(const Tokenizer& t, QuestionSet& set, size_t row) {
    std::vector<Question> others = {set.questions.at(row)};
    others.swap(set.questions);
    std::vector<Request> requests = question_requests(t, set);
    others.swap(set.questions);
    return requests;
}

static std::vector<int> ids_of(const Json& choice, const Json& question, const char* key, const std::string& what) {
    std::vector<int> ids;
    for (const Json& id : json_array(choice.find(key) ? choice : question, key, what)) ids.push_back((int)id.integer);
    return ids;
}

static std::string ids_text(const std::vector<int>& ids) {
    std::string s;
    for (int id : ids) s += std::to_string(id) + " ";
    return s;
}

// ---------------------------------------------------------------------------------------------------------------------
// Edge cases and the bundled sets, in full

static void check_question(QuestionSet& set, const Json& expected, const std::string& what) {
    const size_t row = (size_t)json_int(expected, "row", what);
    CHECK(row < set.questions.size());
    const Question& question = set.questions[row];
    const std::vector<Request> requests = requests_of(tiny_tokenizer(), set, row);
    const std::vector<Json>& choices = json_array(expected, "choices", what);
    CHECK_EQ(question.gold, json_int(expected, "gold", what));
    CHECK_EQ(question.choices.size(), choices.size());
    CHECK_EQ(requests.size(), choices.size());
    for (size_t i = 0; i < choices.size(); i++) {
        const Json& c = choices[i];
        CHECK_EQ(question.choices[i].context, json_string(c.find("context") ? c : expected, "context", what));
        CHECK_EQ(question.choices[i].continuation, json_string(c, "continuation", what));
        if (set.normalized) CHECK_EQ(question.choices[i].length, json_int(c, "length", what));
        const std::vector<int>& tokens = requests[i].tokens;
        CHECK(requests[i].n_context >= 1 && requests[i].n_context < (int)tokens.size());
        const auto border = tokens.begin() + requests[i].n_context;
        CHECK_EQ(ids_text({tokens.begin(), border}), ids_text(ids_of(c, expected, "context_ids", what)));
        CHECK_EQ(ids_text({border, tokens.end()}), ids_text(ids_of(c, expected, "continuation_ids", what)));
    }
}

// Every question of TASK.json; all differences are counted, the first are told.
static void check_task(const std::string& task) {
    const std::string path = golden + task + ".json";
    const Json reference = json_parse_file(path);
    std::map<std::string, QuestionSet> sets;
    std::map<std::string, size_t> seen;
    size_t wrong = 0;
    std::string first;
    for (const Json& expected : json_array(reference, "questions", path)) {
        const std::string data = json_string(expected, "data", path);
        if (!sets.count(data)) sets[data] = question_set(tiny_tokenizer(), task, data);
        CHECK_EQ(sets[data].normalized, json_bool(reference, "normalized", path));
        seen[data]++;
        try {
            check_question(sets[data], expected, path);
        } catch (const std::exception& e) {
            if (wrong++ >= 3) continue;
            first += format("\n    %s, row %lld: %s", data.c_str(), json_int(expected, "row", path), e.what());
        }
    }
    if (wrong) fail("%s: %zu questions differ:%s", task.c_str(), wrong, first.c_str());
    CHECK_EQ(sets.size(), (size_t)2);
    CHECK_EQ(seen["data/tiny"], (size_t)20);
    CHECK_EQ(seen[golden + "edge"], sets[golden + "edge"].questions.size());
}

TEST(piqa_prompts) { check_task("piqa"); }
TEST(arc_easy_prompts) { check_task("arc_easy"); }
TEST(arc_challenge_prompts) { check_task("arc_challenge"); }
TEST(hellaswag_prompts) { check_task("hellaswag"); }
TEST(winogrande_prompts) { check_task("winogrande"); }
TEST(boolq_prompts) { check_task("boolq"); }
TEST(mmlu_prompts_of_the_paper) { check_task("mmlu"); }
TEST(mmlu_prompts_of_lm_eval) { check_task("mmlu_lm_eval"); }

TEST(a_limit_takes_the_first_questions) {
    for (const std::string& task : choice_tasks) {
        const QuestionSet all = choice_set(task, "data/tiny", 0), few = choice_set(task, "data/tiny", 3);
        CHECK_EQ(few.questions.size(), (size_t)3);
        for (size_t i = 0; i < 3; i++)
            CHECK_EQ(few.questions[i].choices[1].continuation, all.questions[i].choices[1].continuation);
        CHECK_EQ(choice_set(task, "data/tiny", 100000).questions.size(), all.questions.size());
    }
    const QuestionSet all = question_set(tiny_tokenizer(), "mmlu", "data/tiny");
    const QuestionSet few = question_set(tiny_tokenizer(), "mmlu", "data/tiny", 2);
    CHECK_EQ(all.questions.size(), (size_t)320);
    CHECK_EQ(few.questions.size(), (size_t)8);
    for (size_t i = 0; i < 8; i++)
        CHECK_EQ(few.questions[i].choices[0].context, all.questions[i / 2 * 80 + i % 2].choices[0].context);
}

// ---------------------------------------------------------------------------------------------------------------------
// The rules one by one

TEST(hellaswag_marks_are_taken_out) {
    CHECK_EQ(hellaswag_text("Bread [title] Mix it."), "Bread. Mix it.");  // two spaces behind the full stop become one
    CHECK_EQ(hellaswag_text("[header] Bread"), " Bread");                 // no second strip
    CHECK_EQ(hellaswag_text("Bread [step]"), "Bread ");
    CHECK_EQ(hellaswag_text("a   b"), "a  b");                            // one pass
    CHECK_EQ(hellaswag_text("a    b"), "a  b");
    CHECK_EQ(hellaswag_text("  a [x]b [y] c \n"), "a b c");
    CHECK_EQ(hellaswag_text("[a] b [c]"), " b ");
    CHECK_EQ(hellaswag_text("[a [b] c]"), " c]");
    CHECK_EQ(hellaswag_text("[a\nb] [c]"), "[a\nb] ");
    CHECK_EQ(hellaswag_text("[title] a"), " a");                          // no space before it, so it is any mark
    CHECK_EQ(hellaswag_text("a [title][title] b"), "a. b");
    CHECK_EQ(hellaswag_text("\u00a0\u3000a\u2003"), "a");
    CHECK_EQ(hellaswag_text("\x1c" "a\u200b"), "a\u200b");
    CHECK_EQ(hellaswag_text(""), "");
    CHECK_EQ(hellaswag_text("[[x]] [\n[y]]"), "] [\n]");
    const std::string open(1000000, '[');  // as many searches for what isn't there would take an hour
    CHECK_EQ(hellaswag_text(open), open);
    CHECK_EQ(hellaswag_text(open + "\n" + open + "]"), open + "\n");
}

// What Python 3 gives.
TEST(capitalize_is_that_of_python) {
    CHECK_EQ(capitalize("iPhone AND"), "Iphone and");
    CHECK_EQ(capitalize(""), "");
    CHECK_EQ(capitalize(" ABC"), " abc");
    CHECK_EQ(capitalize("3D PRINTER"), "3d printer");
    CHECK_EQ(capitalize("'ABC"), "'abc");
    CHECK_EQ(capitalize("éTÉ À"), "Été à");
    CHECK_EQ(capitalize("ÑANDÚ"), "Ñandú");
    CHECK_EQ(capitalize("йОГУРТ И"), "Йогурт и");
    CHECK_EQ(capitalize("ÿŸ"), "Ÿÿ");
    CHECK_EQ(capitalize("日本 ABC"), "日本 abc");
    CHECK_EQ(capitalize("🙂 ABC"), "🙂 abc");
    CHECK_EQ(capitalize("\U00010428\U00010400"), "\U00010400\U00010428");
}

TEST(capitalize_is_that_of_python_for_rare_characters) {
    CHECK_EQ(capitalize("\u01c6EP \u01c5\u01c4"), "\u01c5ep \u01c6\u01c6");  // title case is not upper case
    CHECK_EQ(capitalize("ßTRASSE"), "Sstrasse");
    CHECK_EQ(capitalize("\ufb01N"), "Fin");
    CHECK_EQ(capitalize("i\u0130"), "Ii\u0307");
    CHECK_EQ(capitalize("\u0130STANBUL"), "\u0130stanbul");
    CHECK_EQ(capitalize("ΟΔΟΣ ΣΑΣ"), "Οδος σας");
    CHECK_EQ(capitalize("ΣΑΣ, ΑΣ."), "Σας, ας.");
    CHECK_EQ(capitalize("\u10d0 \u1c90"), "\u10d0 \u10d0");
    CHECK_EQ(capitalize("\uab70 \u13a0"), "\u13a0 \uab70");
    CHECK_EQ(capitalize("\u1fb3Α"), "\u1fbcα");
    CHECK_EQ(capitalize("\u0390"), "\u0399\u0308\u0301");
    CHECK_EQ(capitalize("\u2178 \u24d0"), "\u2168 \u24d0");
}

// Context and continuation after white space has moved, and their border.
static void check_border(const std::string& context, const std::string& continuation, const std::string& kept) {
    const Tokenizer& t = tiny_tokenizer();
    const Request r = encode_request(t, context, continuation);
    const std::vector<int> whole = tokenizer_encode(t, context + continuation), alone = tokenizer_encode(t, kept);
    CHECK_EQ(r.n_context, (int)alone.size());
    CHECK_EQ(ids_text({r.tokens.begin(), r.tokens.begin() + r.n_context}), ids_text(alone));
    CHECK_EQ(ids_text({r.tokens.begin() + r.n_context, r.tokens.end()}),
             ids_text({whole.begin() + (int)alone.size(), whole.end()}));
}

TEST(white_space_moves_to_the_continuation) {
    check_border("Answer:", " 's", "Answer:");
    check_border("Answer:", " .", "Answer:");
    check_border("Answer: ", " 's", "Answer:");
    check_border("Answer: \t\u00a0\u3000", " .5", "Answer:");
    check_border("the cat  ", " ran", "the cat");
    check_border("the cat\x1f", " ran", "the cat");
    check_border("the cat\u200b", " ran", "the cat\u200b");
}

// The tokenizer makes one token of ".\n". The context is tokenized by itself, and as many tokens are taken off the
// whole: the line end is lost, as in lm-evaluation-harness.
TEST(a_merge_across_the_border_is_split_by_count) {
    const Tokenizer& t = tiny_tokenizer();
    const std::vector<int> whole = tokenizer_encode(t, "the end.\n go"), alone = tokenizer_encode(t, "the end.");
    CHECK(whole[alone.size() - 1] != alone.back());
    check_border("the end.\n", " go", "the end.");
    check_border("the end:\n", " go", "the end:");
}

TEST(lengths_are_code_points) {
    TempFolder dir;
    std::filesystem::create_directories(dir / "piqa");
    write_bytes(dir / "piqa/valid.jsonl", R"({"goal": "g", "sol1": "éééé", "sol2": "abcdef"})"
                                          "\n"
                                          R"({"goal": "g", "sol1": "cafe\u0301", "sol2": "\ud83d\ude42 你好"})");
    write_bytes(dir / "piqa/valid-labels.lst", "1\n0\n");
    const QuestionSet set = choice_set("piqa", dir.path, 0);
    CHECK_EQ(set.questions[0].choices[0].length, 4);
    CHECK_EQ(set.questions[1].choices[0].length, 5);
    CHECK_EQ(set.questions[1].choices[1].length, 4);
    // By code points the second is better (-5/4 and -6/6), by bytes the first were (-5/8), and by sum it is.
    const QuestionResult result = question_result(set, {-5, -6, -1, -2});
    CHECK_EQ(result.hits[0], 0.0);
    CHECK_EQ(result.norm_hits[0], 100.0);
    CHECK_EQ(result.hits[1], 100.0);
    CHECK_EQ(result.acc.value, 50.0);
    CHECK_EQ(result.acc_norm.value, 100.0);
}

static void write_mmlu(const TempFolder& dir, const std::string& dev, const std::string& test) {
    std::filesystem::create_directories(dir / "mmlu/dev");
    std::filesystem::create_directories(dir / "mmlu/test");
    write_bytes(dir / "mmlu/dev/abstract_algebra_dev.csv", dev);
    write_bytes(dir / "mmlu/test/abstract_algebra_test.csv", test);
}

static const std::string mmlu_dev =
    "q1,a,b,c,d,A\nq2 ,a,b,c,d,B\n q3,a,b,c,d,C\n\"q\n4\",a,b,c,d,D\nq5,a, b,\"c,\",d,A\n";

TEST(mmlu_prompt_byte_for_byte) {
    TempFolder dir;
    write_mmlu(dir, mmlu_dev, "\" Is it \"\"x\"\"?\n\",1,2,3,4,C\r\n");
    const std::string tail = "\n\nq5\nA. a\nB.  b\nC. c,\nD. d\nAnswer: A\n\n";
    const QuestionSet paper = mmlu_set(tiny_tokenizer(), dir.path, "paper", 0);
    CHECK_EQ(paper.questions.size(), (size_t)1);
    CHECK_EQ(paper.questions[0].gold, 2);
    CHECK_EQ(paper.questions[0].choices[3].context,
             "The following are multiple choice questions (with answers) about  abstract algebra.\n\n"
             "q1\nA. a\nB. b\nC. c\nD. d\nAnswer: A\n\nq2 \nA. a\nB. b\nC. c\nD. d\nAnswer: B\n\n"
             " q3\nA. a\nB. b\nC. c\nD. d\nAnswer: C\n\nq\n4\nA. a\nB. b\nC. c\nD. d\nAnswer: D" + tail +
             " Is it \"x\"?\n\nA. 1\nB. 2\nC. 3\nD. 4\nAnswer:");
    CHECK_EQ(paper.questions[0].choices[3].continuation, "D");
    const QuestionSet harness = mmlu_set(tiny_tokenizer(), dir.path, "lm-eval", 0);
    CHECK_EQ(harness.questions[0].choices[0].context,
             "The following are multiple choice questions (with answers) about abstract algebra.\n\n"
             "q1\nA. a\nB. b\nC. c\nD. d\nAnswer: A\n\nq2\nA. a\nB. b\nC. c\nD. d\nAnswer: B\n\n"
             "q3\nA. a\nB. b\nC. c\nD. d\nAnswer: C\n\nq\n4\nA. a\nB. b\nC. c\nD. d\nAnswer: D" + tail +
             "Is it \"x\"?\nA. 1\nB. 2\nC. 3\nD. 4\nAnswer:");
    CHECK_EQ(harness.questions[0].choices[3].continuation, " D");
}

// ---------------------------------------------------------------------------------------------------------------------
// The real sets, by digests

TEST(real_sets_have_their_official_sizes) {
    const std::string data = shared_data();
    const size_t sizes[] = {1838, 2376, 1172, 10042, 1267, 3270};
    for (size_t i = 0; i < choice_tasks.size(); i++)
        CHECK_EQ(choice_set(choice_tasks[i], data, 0).questions.size(), sizes[i]);
    for (const std::string& task : choice_tasks) CHECK(choice_set(task, data, 0).official);
    const QuestionSet mmlu = mmlu_set(tokenizer_load(data + "/qwen3-tokenizer"), data, "paper", 1);
    CHECK_EQ(mmlu.questions.size(), (size_t)57);
    CHECK(mmlu.official);
}

static void hash_text(Sha256& hash, const std::string& text) { sha256_update(hash, text.c_str(), text.size() + 1); }

// The files of a set, as real.json's `source` has them.
static std::string source_digest(const std::string& data, const std::string& task, const QuestionSet& set) {
    static const std::map<std::string, std::vector<std::string>> files = {
        {"piqa", {"piqa/valid.jsonl", "piqa/valid-labels.lst"}}, {"arc_easy", {"arc/ARC-Easy-Test.jsonl"}},
        {"arc_challenge", {"arc/ARC-Challenge-Test.jsonl"}},     {"hellaswag", {"hellaswag/hellaswag_val.jsonl"}},
        {"winogrande", {"winogrande/dev.jsonl"}},                {"boolq", {"boolq/val.jsonl"}}};
    std::vector<std::string> names;
    for (const std::string& subject : set.subjects)
        for (const char* split : {"dev", "test"})
            names.push_back(format("mmlu/%s/%s_%s.csv", split, subject.c_str(), split));
    if (names.empty()) names = files.at(task);
    Sha256 hash;
    for (const std::string& name : names) {
        const std::string bytes = read_bytes(data + "/" + name);
        sha256_update(hash, bytes.data(), bytes.size());
    }
    return sha256_finish(hash);
}

// A set against its entry in real.json. Without a tokenizer only texts are compared.
static void check_digests(QuestionSet set, const Tokenizer* t, const Json& reference, const std::string& what) {
    Sha256 all;
    for (const Question& q : set.questions) {
        for (const Choice& c : q.choices) hash_text(all, c.context), hash_text(all, c.continuation);
        hash_text(all, std::to_string(q.gold));
    }
    CHECK_EQ((long long)set.questions.size(), json_int(reference, "count", what));
    for (const Json& expected : json_array(reference, "questions", what)) {
        const size_t row = (size_t)json_int(expected, "row", what);
        const std::vector<Json>& choices = json_array(expected, "choices", what);
        const Question& question = set.questions.at(row);
        const std::string name = what + ", row " + std::to_string(row);
        CHECK_EQ(question.gold, json_int(expected, "gold", what));
        CHECK_EQ(question.choices.size(), choices.size());
        std::vector<Request> requests;
        if (t) requests = requests_of(*t, set, row);
        for (size_t i = 0; i < choices.size(); i++) {
            const std::string text = question.choices[i].context + '\0' + question.choices[i].continuation;
            CHECK_EQ(name + ": " + sha256_hex(text.data(), text.size()),
                     name + ": " + json_string(choices[i], "text", what));
            if (!t) continue;
            const Request& r = requests[i];
            CHECK_EQ(r.n_context, json_int(choices[i], "n_context", what));
            CHECK_EQ((int)r.tokens.size() - r.n_context, json_int(choices[i], "n_continuation", what));
            CHECK_EQ(name + ": " + sha256_hex(r.tokens.data(), r.tokens.size() * sizeof(int)),
                     name + ": " + json_string(choices[i], "ids", what));
        }
    }
    CHECK_EQ(sha256_finish(all), json_string(reference, "all", what));
}

static void check_real(const std::string& task) {
    const std::string data = shared_data(), path = golden + "real.json";
    const Json reference = json_parse_file(path);
    const Tokenizer t = tokenizer_load(data + "/qwen3-tokenizer");
    QuestionSet set = question_set(t, task, data);
    const Json& expected = json_object(reference, task.c_str(), path);
    if (source_digest(data, task, set) != json_string(expected, "source", path)) SKIP("another copy of the set");
    check_digests(std::move(set), &t, expected, task);
}

TEST(real_piqa) { check_real("piqa"); }
TEST(real_arc_easy) { check_real("arc_easy"); }
TEST(real_arc_challenge) { check_real("arc_challenge"); }
TEST(real_hellaswag) { check_real("hellaswag"); }
TEST(real_winogrande) { check_real("winogrande"); }
TEST(real_boolq) { check_real("boolq"); }
TEST(real_mmlu_of_the_paper) { check_real("mmlu"); }
TEST(real_mmlu_of_lm_eval) { check_real("mmlu_lm_eval"); }

TEST(real_hellaswag_before_its_preprocessing) {
    const std::string data = shared_data(), path = golden + "real.json";
    if (!file_exists(data + "/hellaswag/raw_subset_1000.jsonl")) SKIP("no raw_subset_1000.jsonl");
    const std::string bytes = read_bytes(data + "/hellaswag/raw_subset_1000.jsonl");
    const Json reference = json_parse_file(path);
    const Json& expected = json_object(reference, "hellaswag_raw", path);
    if (sha256_hex(bytes.data(), bytes.size()) != json_string(expected, "source", path))
        SKIP("another copy of the rows");
    TempFolder dir;
    std::filesystem::create_directories(dir / "hellaswag");
    write_bytes(dir / "hellaswag/hellaswag_val.jsonl", bytes);
    check_digests(choice_set("hellaswag", dir.path, 0), nullptr, expected, "hellaswag_raw");
}

// ---------------------------------------------------------------------------------------------------------------------
// Broken sets

struct Format {
    std::string task, file, row;  // row: a good line, one that can be read
    std::vector<std::string> needed;
};

static const std::vector<Format> formats = {
    {"piqa", "piqa/valid.jsonl", R"({"goal": "g", "sol1": "one", "sol2": "two"})", {"goal", "sol1", "sol2"}},
    {"arc_easy", "arc/ARC-Easy-Test.jsonl",
     R"({"question": {"stem": "s", "choices": [{"text": "one", "label": "A"}, {"text": "two", "label": "B"}]}, )"
     R"("answerKey": "B"})",
     {"question", "stem", "choices", "text", "label", "answerKey"}},
    {"arc_challenge", "arc/ARC-Challenge-Test.jsonl",
     R"({"question": {"stem": "s", "choices": [{"text": "one", "label": "1"}, {"text": "two", "label": "2"}]}, )"
     R"("answerKey": "1"})",
     {"question", "stem", "choices", "text", "label", "answerKey"}},
    {"hellaswag", "hellaswag/hellaswag_val.jsonl",
     R"({"activity_label": "l", "ctx_a": "a", "ctx_b": "b", "endings": ["one", "two", "three", "four"], "label": 3})",
     {"activity_label", "ctx_a", "ctx_b", "endings", "label"}},
    {"winogrande", "winogrande/dev.jsonl",
     R"({"sentence": "s _ t", "option1": "one", "option2": "two", "answer": "2"})",
     {"sentence", "option1", "option2", "answer"}},
    {"boolq", "boolq/val.jsonl", R"({"question": "q", "passage": "a one", "label": true})",
     {"question", "passage", "label"}},
};

// `text` with the first `from` replaced, which must be there.
static std::string replaced(std::string text, const std::string& from, const std::string& to) {
    const size_t at = text.find(from);
    if (at == std::string::npos) fail("%s is not in %s", from.c_str(), text.c_str());
    return text.replace(at, from.size(), to);
}

// A folder where the task's file has a good first line and `second`.
static void write_set(const TempFolder& dir, const Format& f, const std::string& second) {
    std::filesystem::create_directories(std::filesystem::path(dir / f.file).parent_path());
    write_bytes(dir / f.file, f.row + "\n" + second + "\n");
    if (f.task == "piqa") write_bytes(dir / "piqa/valid-labels.lst", "1\n0\n");
}

// The second line, `row` with `from` replaced, is refused with an error that names it.
static void check_refused(const Format& f, const std::string& from, const std::string& to) {
    const std::string second = replaced(f.row, from, to);
    TempFolder dir;
    write_set(dir, f, second);
    try {
        CHECK_ERROR(choice_set(f.task, dir.path, 0), f.file + ":2");
    } catch (const std::exception& e) {
        fail("%s with %s: %s", f.task.c_str(), json_quote(second.substr(0, 200)).c_str(), e.what());
    }
}

static const Format& format_of(const std::string& task) {
    for (const Format& f : formats)
        if (f.task == task) return f;
    fail("no format of %s", task.c_str());
}

TEST(good_lines_are_read) {
    for (const Format& f : formats) {
        TempFolder dir;
        write_set(dir, f, f.row);
        CHECK_EQ(choice_set(f.task, dir.path, 0).questions.size(), (size_t)2);
        write_bytes(dir / f.file, f.row + "\r\n" + f.row);  // CRLF, and no line end at the end
        CHECK_EQ(choice_set(f.task, dir.path, 0).questions.size(), (size_t)2);
        write_bytes(dir / f.file, "\xEF\xBB\xBF\n" + f.row + "\n \t\r\n" + f.row + "\n\n");  // layout: BOM, lines of white space
        if (f.task == "piqa") write_bytes(dir / "piqa/valid-labels.lst", "\xEF\xBB\xBF" "1\r\n\n0\n\n");
        const QuestionSet set = choice_set(f.task, dir.path, 0);
        CHECK_EQ(set.questions.size(), (size_t)2);
        CHECK(!set.official);
        CHECK(set.variant.find(", 2 questions, not the official ") != std::string::npos);
    }
}

TEST(missing_fields_are_refused) {
    for (const Format& f : formats)
        for (const std::string& key : f.needed) {
            const std::string quoted = "\"" + key + "\":";
            check_refused(f, quoted, "\"other\":");
            check_refused(f, quoted, quoted + " {}, \"other\":");  // of the wrong type
        }
}

TEST(broken_lines_are_refused) {
    for (const Format& f : formats) {
        check_refused(f, f.row, f.row.substr(0, f.row.size() - 1));
        check_refused(f, f.row, f.row + " " + f.row);
        check_refused(f, f.row, "[]");
        check_refused(f, f.row, "no JSON");
        check_refused(f, "one", "on\xff");          // never in UTF-8
        check_refused(f, "one", "\xed\xa0\x80ne");  // a surrogate
    }
}

TEST(labels_out_of_range_are_refused) {
    for (const std::string label : {"4", "-1", "1.5", "\"x\"", "null", "99999999999"})
        check_refused(format_of("hellaswag"), "\"label\": 3", "\"label\": " + label);
    for (const char* answer : {"\"0\"", "\"3\"", "\"\"", "\"12\"", "null"})
        check_refused(format_of("winogrande"), "\"2\"", answer);
    for (const char* label : {"2", "-1", "\"yes\"", "0.5"}) check_refused(format_of("boolq"), "true", label);
    for (const std::string key : {"C", "1", "", "AB", "b"})
        check_refused(format_of("arc_easy"), "\"answerKey\": \"B", "\"answerKey\": \"" + key);
    check_refused(format_of("arc_challenge"), "\"answerKey\": \"1", "\"answerKey\": \"A");
    const Format& piqa = format_of("piqa");
    for (const std::string label : {"2", "-1", "x", "01", "0 1"}) {
        TempFolder dir;
        write_set(dir, piqa, piqa.row);
        write_bytes(dir / "piqa/valid-labels.lst", "0\n" + label + "\n");
        CHECK_ERROR(choice_set("piqa", dir.path, 0), ":2");
    }
}

TEST(empty_and_missing_choices_are_refused) {
    for (const char* task : {"piqa", "arc_easy", "arc_challenge", "hellaswag", "winogrande"})
        for (const char* choice : {"\"one\"", "\"two\""}) check_refused(format_of(task), choice, "\"\"");
    check_refused(format_of("hellaswag"), ", \"two\"", "");
    check_refused(format_of("hellaswag"), "\"two\"", "2");
    check_refused(format_of("arc_easy"), R"({"text": "one", "label": "A"}, {"text": "two", "label": "B"})", "");
    check_refused(format_of("arc_easy"), R"({"text": "one", "label": "A"}, )", "");
    check_refused(format_of("winogrande"), "s _ t", "no blank");
}

TEST(a_line_of_100_KB_is_read) {
    const std::string word(100 * 1024, 'x');
    for (const Format& f : formats) {
        TempFolder dir;
        write_set(dir, f, replaced(f.row, "one", word));
        const QuestionSet set = choice_set(f.task, dir.path, 0);
        const Choice& choice = set.questions[1].choices[0];
        CHECK((choice.context + choice.continuation).find(word) != std::string::npos);
    }
}

TEST(labels_are_as_many_as_questions) {
    const Format& f = format_of("piqa");
    for (const char* labels : {"1\n", "1", "1\n0\n1\n", "1\n\n", "", "\n\n"}) {
        TempFolder dir;
        write_set(dir, f, f.row);
        write_bytes(dir / "piqa/valid-labels.lst", labels);
        CHECK_ERROR(choice_set("piqa", dir.path, 0), "valid-labels.lst:");
    }
    TempFolder dir;
    write_set(dir, f, f.row);
    std::filesystem::remove(dir / "piqa/valid-labels.lst");
    CHECK_ERROR(choice_set("piqa", dir.path, 0), "valid-labels.lst");
}

TEST(missing_and_empty_sets_are_refused) {
    for (const Format& f : formats) {
        TempFolder dir;
        CHECK_ERROR(choice_set(f.task, dir.path, 0), f.file);
        write_set(dir, f, f.row);
        for (const char* nothing : {"", "\n \n", "\xEF\xBB\xBF"}) {
            write_bytes(dir / f.file, nothing);
            CHECK_ERROR(choice_set(f.task, dir.path, 0), f.file + ": expected questions, found an empty file");
        }
    }
    TempFolder dir;
    CHECK_ERROR(mmlu_set(tiny_tokenizer(), dir.path, "paper", 0), "mmlu/test");
    for (const char* nothing : {"", "\n", " \r\n\n"}) {  // a subject without questions would have a mean over nothing
        write_mmlu(dir, mmlu_dev, nothing);
        for (size_t limit : {0, 1})
            CHECK_ERROR(mmlu_set(tiny_tokenizer(), dir.path, "paper", limit),
                        "abstract_algebra_test.csv: expected questions, found an empty file");
        write_mmlu(dir, nothing, "q,a,b,c,d,A\n");
        CHECK_ERROR(mmlu_set(tiny_tokenizer(), dir.path, "paper", 0), "abstract_algebra_dev.csv: expected questions, found an empty");
    }
    CHECK_ERROR(mean_estimate({}), "found none");
    write_mmlu(dir, mmlu_dev, "q,a,b,c,d,A\n");
    const QuestionSet one = mmlu_set(tiny_tokenizer(), dir.path, "paper", 0);
    CHECK(!one.official);
    CHECK(one.variant.find(", 1 questions, not the official 14042, 1 subjects of which 1 are known, not the official 57") != std::string::npos);
    std::filesystem::remove(dir / "mmlu/dev/abstract_algebra_dev.csv");
    CHECK_ERROR(mmlu_set(tiny_tokenizer(), dir.path, "paper", 0), "mmlu/dev/abstract_algebra_dev.csv");
}

// A vocabulary in which a letter has no token, as it can be where it is not of bytes.
TEST(letters_without_a_token_are_refused) {
    TempFolder dir;
    write_mmlu(dir, mmlu_dev, "q,a,b,c,d,A\n");
    const QuestionSet set = mmlu_set(tiny_tokenizer(), dir.path, "paper", 0);
    CHECK_EQ(question_requests(tiny_tokenizer(), set).size(), 4u);
    Tokenizer none = tiny_tokenizer();
    none.byte_id[(int)'A'] = -1;
    CHECK_ERROR(question_requests(none, set), "mmlu: the tokenizer has no token for \"A\"");
}

TEST(broken_mmlu_files_are_refused) {
    struct Case {
        std::string rows, line;  // of the test file, and where the error is
    };
    const std::string good = "\"q\nof two lines\",a,b,c,d,A\n";
    const std::vector<Case> cases = {
        {good + "\"q,a,b,c,d,A\nq,a,b,c,d,A\n", ":3"},  // a quote that nothing closes
        {good + "q\",a,b,c,d,A\n", ":3"},
        {good + "\"q\"x,a,b,c,d,A\n", ":3"},
        {good + "q,a,b,c,d\n", ":3"},
        {good + "q,a,b,c,d,e,A\n", ":3"},
        {good + "q,a,b,c,d,E\n", ":3"},
        {good + "q,a,b,c,d,\n", ":3"},
        {good + "q,a,b,c,d,AB\n", ":3"},
        {good + "q,a,b,c,d,a\n", ":3"},
        {good + "q,a,,c,d,A\n", ":3"},
        {good + ",a,b,c,d,A\n", ":3"},
        {good + good + "q,a,\xff,c,d,A\n", ":5"},
        {good + ",\n" + good, ":3"},
        {good + "\n \t\r\nq,a,b,c,d\n", ":5"},  // lines of white space are no rows, but they are lines
    };
    for (const Case& c : cases)
        for (const char* style : {"paper", "lm-eval"}) {
            TempFolder dir;
            write_mmlu(dir, mmlu_dev, c.rows);
            CHECK_ERROR(mmlu_set(tiny_tokenizer(), dir.path, style, 0), "mmlu/test/abstract_algebra_test.csv" + c.line);
            write_mmlu(dir, mmlu_dev + c.rows, good);
            const std::string line = format(":%d", std::atoi(c.line.c_str() + 1) + 6);
            CHECK_ERROR(mmlu_set(tiny_tokenizer(), dir.path, style, 0), "mmlu/dev/abstract_algebra_dev.csv" + line);
        }
    TempFolder dir;
    write_mmlu(dir, "q,a,b,c,d,A\nq,a,b,c,d,A\n", good);  // too few shots
    CHECK_ERROR(mmlu_set(tiny_tokenizer(), dir.path, "paper", 0), "mmlu/dev/abstract_algebra_dev.csv");
}
