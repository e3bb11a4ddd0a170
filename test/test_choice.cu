// The trie of requests, the scores of choices and what is made of them: against a set of all prefixes, against the same requests one
// sequence at a time, against rounding as PyTorch does it, and against the accuracies that PyTorch gives for the bundled model.
// (The prompts and their tokens: test_prompts.cu.)
#include "golden.h"
#include "test.h"
#include <map>
#include <set>
#include <sstream>

// Requests over a small vocabulary, many of which begin alike, some equal.
static std::vector<Request> random_requests(int n, int seed) {
    PythonRandom random(seed);
    std::vector<Request> requests;
    for (int i = 0; i < n; i++) {
        Request r;
        const int length = (int)random.randint(2, 12);
        for (int t = 0; t < length; t++) r.tokens.push_back((int)random.randint(0, 2));
        r.n_context = (int)random.randint(1, length - 1);
        requests.push_back(r);
    }
    requests.push_back(requests[n / 2]);
    return requests;
}

// The tokens before and at `row`, from the root.
static std::vector<int> path_to(const Trie& trie, size_t row) {
    std::vector<int> path;
    int s = 0;
    while ((size_t)(trie.segments[s].start + trie.segments[s].len) <= row) s++;
    for (int last = (int)row; s >= 0; s = trie.segments[s].parent) {
        if (last < 0) last = trie.segments[s].start + trie.segments[s].len - 1;
        for (int t = last; t >= trie.segments[s].start; t--) path.push_back(trie.tokens[t]);
        last = -1;
    }
    std::reverse(path.begin(), path.end());
    return path;
}

TEST(trie_has_every_prefix_once_and_every_target) {
    for (size_t most : {(size_t)1000000, (size_t)40, (size_t)3}) {
        const std::vector<Request> requests = random_requests(200, 5);
        const Trie trie = trie_build(requests, most);
        std::set<std::vector<int>> prefixes, inputs;
        size_t asked = 0, longest = 0;
        for (const Request& r : requests) {
            const std::vector<int> input(r.tokens.begin(), r.tokens.end() - 1);
            for (size_t n = 1; n <= input.size(); n++) prefixes.insert({input.begin(), input.begin() + n});
            if (inputs.insert(input).second) asked += input.size();
            longest = std::max(longest, input.size());
        }
        CHECK_EQ(trie.tokens_asked, asked);
        if (most == 1000000) CHECK_EQ(trie.tokens.size(), prefixes.size());
        else CHECK(trie.tokens.size() > prefixes.size());
        check_segments(trie.segments, (int)trie.tokens.size());
        size_t tree = 0;
        for (size_t s = 0; s < trie.segments.size(); s++) {
            const Segment& seg = trie.segments[s];
            tree = seg.parent < 0 ? (size_t)seg.len : tree + seg.len;
            CHECK(tree <= std::max(most, longest));
            CHECK_EQ(seg.pos, seg.parent < 0 ? 0 : trie.segments[seg.parent].pos + trie.segments[seg.parent].len);
        }
        for (size_t k = 1; k < trie.targets.size(); k++) {
            const Target &a = trie.targets[k - 1], &b = trie.targets[k];
            CHECK(a.row < b.row || (a.row == b.row && a.token < b.token));
        }
        CHECK_EQ(trie.wanted.size(), requests.size());
        for (size_t i = 0; i < requests.size(); i++) {
            const Request& r = requests[i];
            CHECK_EQ(trie.wanted[i].size(), r.tokens.size() - r.n_context);
            for (size_t j = 0; j < trie.wanted[i].size(); j++) {
                const Target& target = trie.targets[trie.wanted[i][j]];
                CHECK_EQ(target.token, r.tokens[r.n_context + j]);
                CHECK(path_to(trie, target.row) == std::vector<int>(r.tokens.begin(), r.tokens.begin() + r.n_context + j));
            }
        }
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Scores on the bundled model

struct Tiny {
    Model model;
    Tokenizer tokenizer;
};

static const Tiny& tiny() {
    static const Tiny t = [] {
        Options o;
        o.model = "data/tiny";
        Model m = model_open(o);
        return Tiny{std::move(m), tokenizer_load("data/tiny")};
    }();
    return t;
}

static QuestionSet tiny_set(const std::string& task, size_t limit) {
    return task == "mmlu" ? mmlu_set(tiny().tokenizer, "data/tiny", "paper", limit) : choice_set(task, "data/tiny", limit);
}

// Runs the stream through the bundled model, and returns the log-probabilities of its targets.
static std::vector<float> logprobs(Stream stream, bool bf16 = false) {
    std::vector<Stream> streams;
    streams.push_back(std::move(stream));
    streams[0].bf16_logits = bf16;
    Scratch scratch = push_through(tiny().model, streams);
    Head head = head_load(tiny().model);
    stream_score(tiny().model.config, head, streams[0], nullptr, scratch, nullptr);
    return streams[0].logprobs;
}

// The requests one after the other, each a segment of its own.
static Stream separate_stream(const std::vector<Request>& requests) {
    Stream s;
    s.name = "separate";
    for (const Request& r : requests) {
        const size_t start = s.tokens.size();
        s.segments.push_back({(int)start, (int)input_size(r), -1, 0});
        s.tokens.insert(s.tokens.end(), r.tokens.begin(), r.tokens.end() - 1);
        for (size_t i = r.n_context; i < r.tokens.size(); i++) s.targets.push_back({start + i - 1, r.tokens[i]});
    }
    stream_make_chunks(tiny().model.config, s);
    return s;
}

// 1e-5 in float, by the issue; in bf16 the same values are rounded in other tiles of the attention.
static const double SAME = sizeof(floatX) == 4 ? 1e-5 : 0.1;

TEST(shared_prefixes_change_no_score) {
    skip_when_emulated();
    for (const char* task : {"piqa", "arc_easy", "arc_challenge", "hellaswag", "winogrande", "boolq", "mmlu"}) {
        std::vector<Request> requests = question_requests(tiny().tokenizer, tiny_set(task, 100));
        if (requests.size() > 200) requests.resize(200);
        const std::vector<float> separate = logprobs(separate_stream(requests));
        for (int most : {CHUNK_TOKENS, 300}) {
            Trie trie = trie_build(requests, (size_t)most);
            const std::vector<float> shared = logprobs(stream_of_trie(tiny().model.config, task, trie));
            size_t k = 0;
            for (const std::vector<int>& wanted : trie.wanted)
                for (int target : wanted) {
                    const double difference = std::fabs((double)shared[target] - separate[k]);
                    if (!(difference <= SAME * std::max(1.0, std::fabs((double)separate[k]))))
                        fail("%s: log-probability %zu is %.7g, by itself %.7g", task, k, shared[target], separate[k]);
                    k++;
                }
            CHECK_EQ(k, separate.size());
        }
    }
}

// Scores by transformers in float32, one sequence at a time (scripts/golden/golden_prompts.py): 20 questions of every task.
TEST(scores_are_those_of_transformers) {
    skip_when_emulated();
    for (const char* task : {"piqa", "arc_easy", "arc_challenge", "hellaswag", "winogrande", "boolq", "mmlu"}) {
        const std::string path = std::string("test/golden/prompts/") + task + ".json";
        const QuestionSet set = tiny_set(task, 0);
        const std::vector<Request> requests = question_requests(tiny().tokenizer, set);
        std::vector<size_t> first = {0};  // request of every question
        for (const Question& q : set.questions) first.push_back(first.back() + q.choices.size());
        Trie trie = trie_build(requests, CHUNK_TOKENS);
        const std::vector<float> values = logprobs(stream_of_trie(tiny().model.config, task, trie));
        const std::vector<double> scores = request_scores(trie, values, false);
        const Json golden = json_parse_file(path);
        int compared = 0;
        for (const Json& question : json_array(golden, "questions", path)) {
            if (json_string(question, "data", path) != "data/tiny") continue;
            const size_t row = (size_t)json_int(question, "row", path);
            size_t k = first[row];
            for (const Json& choice : json_array(question, "choices", path)) {
                const double expected = json_number(choice, "score", path), score = scores[k++];
                // bf16: activations have 8 bits, and a continuation has a dozen tokens.
                const double tolerance =
                    sizeof(floatX) == 4 ? 1e-4 * std::max(1.0, std::fabs(expected)) : 0.5 + 0.05 * std::fabs(expected);
                if (!(std::fabs(score - expected) <= tolerance))
                    fail("%s, question %zu: the score is %.6f, transformers' %.6f", task, row, score, expected);
                compared++;
            }
            CHECK_EQ(k, first[row + 1]);
        }
        CHECK(compared >= 40);
    }
}

TEST(accuracies_are_those_of_pytorch) {
    skip_when_emulated();
    const Json manifest = json_parse_file("data/tiny/manifest.json");
    const Json& expected = json_object(json_object(manifest, "evaluation_float32", "manifest"), "bf16", "evaluation");
    const Report r = run_quietly({"-m", "data/tiny", "--data", "data/tiny", "-e", "zeroshot,mmlu"});
    CHECK_EQ(r.tasks.size(), (size_t)7);
    double sum = 0;
    for (const TaskResult& t : r.tasks) {
        const double percent = 100 * json_number(expected, t.task.c_str(), "evaluation");
        // The manifest has four digits; in bf16 a close question or two may fall the other way.
        CHECK_NEAR(t.value, percent, sizeof(floatX) == 4 ? 0.006 : 0.7);
        CHECK_NEAR(t.stderr_, std::sqrt(t.value * (100 - t.value) / (double)(t.n - 1)), 1e-9);
        CHECK_EQ(t.acc_norm.size(), (size_t)(t.task == "winogrande" || t.task == "boolq" || t.task == "mmlu" ? 0 : 1));
        if (t.task != "mmlu") sum += t.value;
    }
    CHECK_NEAR(zero_shot_average(r).value, sum / 6, 1e-9);
    CHECK_EQ(r.tasks[6].subjects.size(), (size_t)4);
    CHECK_EQ(r.tasks[6].n, (size_t)320);
}

TEST(question_lines_have_every_score) {
    QuestionSet set;
    set.name = "a \"task\"", set.subjects = {"first", "second"};
    set.questions = {{{{"c", " x", 1}, {"c", " y", 1}}, 1, 0}, {{{"c", " x", 1}, {"c", " y", 1}, {"c", " z", 1}}, 0, 1}};
    CHECK_EQ(question_lines(set, {-1.5, -0.1, -2, -3.25, -1e-9}),
             "{\"task\": \"a \\\"task\\\"\", \"question\": 0, \"subject\": \"first\", \"gold\": 1, \"scores\": [-1.5, -0.1]}\n"
             "{\"task\": \"a \\\"task\\\"\", \"question\": 1, \"subject\": \"second\", \"gold\": 0, "
             "\"scores\": [-2, -3.25, -1e-09]}\n");
}

// To the nearest number of 8 significant bits, of two the even one.
static double of_eight_bits(double x) {
    int e;
    const double m = std::frexp(x, &e);
    return std::ldexp(std::nearbyint(std::ldexp(m, 8)), e - 8);
}

// The scores of a set's choices by head_logits on the rows of its trie, and a softmax in float64. bf16: logits, log-probabilities and
// their sum are each rounded.
static std::vector<double> scores_by_hand(const QuestionSet& set, bool by_logit, bool bf16) {
    const Config& c = tiny().model.config;
    Trie trie = trie_build(question_requests(tiny().tokenizer, set), CHUNK_TOKENS);
    std::vector<Stream> streams;
    streams.push_back(stream_of_trie(c, set.name, trie));
    const std::vector<Target>& targets = streams[0].targets;
    push_through(tiny().model, streams);
    Head head = head_load(tiny().model);
    std::vector<int> rows;
    for (const Target& t : targets)
        if (rows.empty() || rows.back() != (int)t.row) rows.push_back((int)t.row);
    CHECK((int)rows.size() <= head.batch && streams[0].chunks.size() == 1);
    head_logits(c, head, streams[0].x.data.data, rows);
    std::vector<float> logits(rows.size() * c.V);
    copy(logits.data(), head.logits.data, logits.size());
    auto rounded = [&](double x) { return bf16 ? of_eight_bits(x) : x; };
    std::vector<double> values;
    for (const Target& t : targets) {
        const float* row = &logits[(std::lower_bound(rows.begin(), rows.end(), (int)t.row) - rows.begin()) * c.V];
        double sum = 0;
        for (int v = 0; v < c.V; v++) sum += std::exp(rounded(row[v]));
        values.push_back(rounded(rounded(row[t.token]) - (by_logit ? 0 : std::log(sum))));
    }
    std::vector<double> scores;
    for (const std::vector<int>& wanted : trie.wanted) {
        double sum = 0;
        for (int k : wanted) sum += values[k];
        scores.push_back(rounded(sum));
    }
    return scores;
}

// The scores that --questions writes of a run.
static std::vector<double> scores_of_a_run(std::vector<const char*> args) {
    args.insert(args.begin(), {"-m", "data/tiny", "--data", "data/tiny", "--limit", "4", "--questions", "/tmp/not_written"});
    std::istringstream lines(run_quietly(args).questions);
    std::vector<double> scores;
    for (std::string line; std::getline(lines, line);) {
        const Json question = json_parse(line.data(), line.size(), "a line");
        for (const Json& score : json_array(question, "scores", "a line")) scores.push_back(score.number);
    }
    return scores;
}

// A row's log-probabilities are its logits less a constant, so accuracy can't tell them apart; their sizes can.
TEST(mmlu_is_scored_by_logits_or_by_log_probabilities_as_its_style_says) {
    skip_when_emulated();
    for (const char* style : {"paper", "lm-eval"}) {
        const bool paper = style == std::string("paper");
        const QuestionSet set = mmlu_set(tiny().tokenizer, "data/tiny", style, 4);
        const std::vector<double> found = scores_of_a_run({"-e", "mmlu", "--mmlu-style", style}),
                                  expected = scores_by_hand(set, paper, false), others = scores_by_hand(set, !paper, false);
        CHECK_EQ(found.size(), (size_t)4 * 4 * 4);
        CHECK_EQ(found.size(), expected.size());
        for (size_t i = 0; i < found.size(); i++) {
            CHECK_NEAR(found[i], expected[i], 1e-4);
            CHECK(std::fabs(found[i] - others[i]) > 0.5);
        }
    }
}

// A log-probability in float may lie on the other side of a border than the one in float64: seldom.
TEST(bf16_scores_of_a_run_are_rounded_at_every_step) {
    skip_when_emulated();
    for (const char* task : {"arc_easy", "mmlu"}) {
        const bool letters = task == std::string("mmlu");
        const std::vector<double> found = scores_of_a_run({"-e", task, "--bf16-scores"}),
                                  expected = scores_by_hand(tiny_set(task, 4), letters, true),
                                  exact = scores_by_hand(tiny_set(task, 4), letters, false);
        CHECK_EQ(found.size(), expected.size());
        size_t unlike = 0, moved = 0;
        for (size_t i = 0; i < found.size(); i++) {
            CHECK_EQ(found[i], of_eight_bits(found[i]));
            unlike += found[i] != expected[i];
            moved += of_eight_bits(exact[i]) != expected[i];  // where it matters that the logits were rounded first
        }
        if (unlike > found.size() / 16) fail("%s: %zu of %zu scores are not those of the definition", task, unlike, found.size());
        CHECK(letters || moved > found.size() / 4);
    }
}

TEST(few_bits_fall_towards_chance) {
    skip_when_emulated();
    auto run = [](std::vector<const char*> args) {
        args.insert(args.begin(), {"-m", "data/tiny", "--data", "data/tiny", "-e", "hellaswag,mmlu"});  // four choices each
        return run_quietly(args);
    };
    const Report full = run({}), two = run({"-q", "rtn", "-b", "2"}), one = run({"-q", "rtn", "-b", "1"});
    for (int i = 0; i < 2; i++) {
        CHECK(full.tasks[i].value > 90);
        CHECK(two.tasks[i].value < full.tasks[i].value - 20);
        CHECK_NEAR(one.tasks[i].value, 25, 8);  // three standard errors
    }
}

// The hits of the lines that --questions writes of a task: 100 where the gold choice's score is above all before it and no less than any.
static std::vector<double> hits_of_lines(const std::string& text, const std::string& task) {
    std::istringstream lines(text);
    std::vector<double> hits;
    for (std::string line; std::getline(lines, line);) {
        const Json question = json_parse(line.data(), line.size(), "a line");
        if (json_string(question, "task", "a line") != task) continue;
        const std::vector<Json>& scores = json_array(question, "scores", "a line");
        const size_t gold = (size_t)json_int(question, "gold", "a line");
        bool hit = true;
        for (size_t i = 0; i < scores.size(); i++) hit &= i < gold ? scores[i].number < scores[gold].number : scores[i].number <= scores[gold].number;
        hits.push_back(hit ? 100 : 0);
    }
    return hits;
}

// Each as a run of its own has it, and the difference is that of every question's two answers.
TEST(mmlu_in_both_styles_is_two_runs_in_one) {
    skip_when_emulated();
    auto run = [](const char* style, const char* tasks) {
        return run_quietly({"-m", "data/tiny", "--data", "data/tiny", "-q", "rtn", "-b", "1", "-e", tasks, "--mmlu-style", style, "--limit", "40",
                            "--questions", "/tmp/not_written"});
    };
    const Report both = run("both", "zeroshot,mmlu"), paper = run("paper", "mmlu"), harness = run("lm-eval", "mmlu");
    CHECK(both.tasks.size() == 8 && paper.tasks.size() == 1 && harness.tasks.size() == 1);
    CHECK(both.tasks[6].task == "mmlu" && !both.tasks[6].lm_eval_style && both.tasks[6].less_paper_style.empty());
    CHECK(both.tasks[7].task == "mmlu_lm_eval" && both.tasks[7].lm_eval_style);
    CHECK(both.tasks[6].value == paper.tasks[0].value && both.tasks[6].variant == paper.tasks[0].variant);
    CHECK(both.tasks[7].value == harness.tasks[0].value && both.tasks[7].variant == harness.tasks[0].variant);
    CHECK(hits_of_lines(both.questions, "mmlu") == hits_of_lines(paper.questions, "mmlu"));
    CHECK(hits_of_lines(both.questions, "mmlu_lm_eval") == hits_of_lines(harness.questions, "mmlu"));
    double six = 0;
    for (int i = 0; i < 6; i++) six += both.tasks[i].value / 6;
    CHECK_NEAR(zero_shot_average(both).value, six, 1e-9);

    const std::vector<double> a = hits_of_lines(harness.questions, "mmlu"), b = hits_of_lines(paper.questions, "mmlu");
    CHECK(a.size() == 160 && b.size() == 160);
    double sum = 0, squares = 0, sides = 0;
    for (size_t i = 0; i < a.size(); i++) sum += a[i] - b[i], squares += (a[i] - b[i]) * (a[i] - b[i]), sides += a[i] != b[i];
    const double mean = sum / 160, error = std::sqrt((squares - 160 * mean * mean) / 159 / 160);
    CHECK(sides >= 5 && std::fabs(mean) > 1);  // or there would be nothing to tell apart
    CHECK_EQ(both.tasks[7].less_paper_style.size(), (size_t)1);
    const Estimate less = both.tasks[7].less_paper_style[0];
    CHECK_NEAR(less.value, mean, 1e-9);
    CHECK_NEAR(less.value, both.tasks[7].value - both.tasks[6].value, 1e-9);
    CHECK_NEAR(less.stderr_, error, 1e-9);

    const std::string text = report_text(both), json = report_json(both);
    const size_t average = text.find("  avg  "), first = text.find("  mmlu acc"), other = text.find(", lm-eval style  lm-eval less paper style\n");
    if (!(average < first && first < other && other != std::string::npos && text.find("  avg  ", first) == std::string::npos))
        fail("expected the average, MMLU, MMLU of the other style and the difference, found:\n%s", text.c_str());
    const Json j = json_parse(json.data(), json.size(), "report");
    const Json& results = json_object(j, "results", "report");
    CHECK(!json_object(results, "mmlu", "results").find("less_paper_style"));
    const Json& second = json_object(results, "mmlu_lm_eval", "results");
    CHECK_NEAR(json_number(json_object(second, "less_paper_style", "mmlu_lm_eval"), "stderr", "less_paper_style"), error, 1e-9);
    CHECK_EQ(second.find("paper")->type, Json::NUL);
}

TEST(mmlu_styles_differ_and_agree_on_what_is_right) {
    const QuestionSet paper = tiny_set("mmlu", 5), harness = mmlu_set(tiny().tokenizer, "data/tiny", "lm-eval", 5);
    CHECK_EQ(paper.questions[0].choices[1].continuation, "B");
    CHECK_EQ(harness.questions[0].choices[1].continuation, " B");
    CHECK(paper.questions[0].choices[0].context.find("about  field zoology.\n\n") != std::string::npos);
    CHECK(harness.questions[0].choices[0].context.find("about field zoology.\n\n") != std::string::npos);
    const std::vector<Request> a = question_requests(tiny().tokenizer, paper), b = question_requests(tiny().tokenizer, harness);
    CHECK(a[1].tokens.back() != b[1].tokens.back());
    CHECK_EQ(tokenizer_decode(tiny().tokenizer, {a[1].tokens.back()}), "B");
    CHECK_EQ(tokenizer_decode(tiny().tokenizer, {b[1].tokens.back()}), " B");
    // The letter after the prompt is the token that the prompt's last answers have, whole text or not.
    CHECK(tokenizer_encode(tiny().tokenizer, harness.questions[0].choices[1].context + " B") == b[1].tokens);
}

// ---------------------------------------------------------------------------------------------------------------------
// From scores to results

static QuestionSet two_questions() {
    QuestionSet set;
    set.name = "made up";
    set.normalized = true;
    set.questions.push_back({{{"c", " aa", 2}, {"c", " bbbb", 4}, {"c", " c", 1}}, 0});
    set.questions.push_back({{{"c", " aa", 2}, {"c", " bbbb", 4}}, 1});
    return set;
}

TEST(the_first_of_equal_scores_is_taken_and_lengths_are_code_points) {
    // Sums: question 0 ties between its first two choices; by length (-2, -1, -5) the second is best.
    const QuestionResult r = question_result(two_questions(), {-4, -4, -5, -3, -8});
    CHECK(r.hits == (std::vector<double>{100, 0}));     // 0 is the first of the tie; question 1 prefers 0, gold is 1
    CHECK(r.norm_hits == (std::vector<double>{0, 0}));  // question 1: -1.5 and -2
    CHECK_NEAR(r.acc.value, 50, 1e-12);
    CHECK_NEAR(r.acc.stderr_, std::sqrt((2500 + 2500) / 1.0 / 2), 1e-9);
    CHECK(question_result(two_questions(), {-4, -4, -5, -3, -4}).norm_hits == (std::vector<double>{0, 100}));
    CHECK_ERROR(question_result(two_questions(), {-4, NAN, -5, -3, -4}),
                "made up: the score of choice 1 of question 0 is not a number");
}

TEST(bf16_scores_are_rounded_as_pytorch_does) {
    // torch.tensor([...]).bfloat16(), and float(its first n .sum()), PyTorch 2.
    const std::vector<float> values = {-1.2345678f, -7.6543210f, -0.0123456f, -33.333f, -2.71828f, -101.01f};
    const float rounded[] = {-1.234375f, -7.65625f, -0.0123291015625f, -33.25f, -2.71875f, -101.0f};
    for (int i = 0; i < 6; i++) CHECK_EQ(rounded_to_bf16(values[i]), rounded[i]);
    Trie trie;
    trie.wanted = {{0, 1, 2}, {0, 1, 2, 3}, {0, 1, 2, 3, 4}, {0, 1, 2, 3, 4, 5}};
    CHECK(request_scores(trie, values, true) == (std::vector<double>{-8.875, -42.25, -44.75, -146.0}));
    CHECK_NEAR(request_scores(trie, values, false)[3], -1.2345678 - 7.6543210 - 0.0123456 - 33.333 - 2.71828 - 101.01, 1e-5);
}

TEST(bf16_logits_are_rounded_before_the_softmax) {
    std::vector<Request> requests = question_requests(tiny().tokenizer, tiny_set("arc_easy", 10));
    Trie trie = trie_build(requests, CHUNK_TOKENS);
    Stream s = stream_of_trie(tiny().model.config, "arc_easy", trie);
    const std::vector<float> rounded = logprobs(std::move(s), true);
    Trie again = trie_build(requests, CHUNK_TOKENS);
    const std::vector<float> exact = logprobs(stream_of_trie(tiny().model.config, "arc_easy", again));
    double most = 0;
    for (size_t k = 0; k < exact.size(); k++) most = std::max(most, std::fabs((double)exact[k] - rounded[k]));
    CHECK(most > 1e-4 && most < 0.2);  // logits of about 20 are rounded to 1/16
}

// ---------------------------------------------------------------------------------------------------------------------
// MMLU's parts

// Four subjects of 1, 3, 2 and 1 questions, asked in any order; nobody knows the last one.
TEST(mmlu_parts_are_micro_averages) {
    QuestionSet set;
    set.subjects = {"abstract_algebra", "astronomy", "virology", "field_zoology"};
    const int subjects[] = {1, 2, 0, 1, 3, 2, 1};
    const std::vector<double> hits = {0, 100, 100, 0, 0, 100, 100};
    for (int s : subjects) set.questions.push_back({{}, 0, s});
    NamedEstimates by_subject, by_category;
    mmlu_parts(set, hits, by_subject, by_category);
    const double accuracies[] = {100, 100.0 / 3, 100, 0};
    const size_t sizes[] = {1, 3, 2, 1};
    CHECK_EQ(by_subject.size(), (size_t)4);
    for (int s = 0; s < 4; s++) {
        CHECK_EQ(by_subject[s].first, set.subjects[s]);
        CHECK_NEAR(by_subject[s].second.value, accuracies[s], 1e-12);
        CHECK_EQ(by_subject[s].second.n, sizes[s]);
    }
    CHECK_NEAR(by_subject[1].second.stderr_, 100.0 / 3, 1e-12);  // sqrt((2 * 33.3^2 + 66.7^2) / 2 / 3)
    CHECK_EQ(by_category.size(), (size_t)2);
    CHECK_EQ(by_category[0].first, "STEM");  // two of four, where the mean of its subjects is 67
    CHECK_NEAR(by_category[0].second.value, 50, 1e-12);
    CHECK_EQ(by_category[0].second.n, (size_t)4);
    CHECK_EQ(by_category[1].first, "other");
    CHECK_NEAR(by_category[1].second.value, 100, 1e-12);
    CHECK_EQ(by_category[1].second.n, (size_t)2);
}

// hendrycks/test's categories.py goes from a subject to one of 17 fields, and from a field to its category. (lm-evaluation-harness has
// anatomy in STEM.)
TEST(mmlu_categories_are_those_of_hendrycks) {
    struct Field {
        const char *category, *subjects;
    };
    const Field fields[] = {
        {"STEM", "astronomy conceptual_physics college_physics high_school_physics"},
        {"STEM", "college_chemistry high_school_chemistry"},
        {"STEM", "college_biology high_school_biology"},
        {"STEM", "college_computer_science computer_security high_school_computer_science machine_learning"},
        {"STEM", "abstract_algebra college_mathematics elementary_mathematics high_school_mathematics high_school_statistics"},
        {"STEM", "electrical_engineering"},
        {"humanities", "high_school_european_history high_school_us_history high_school_world_history prehistory"},
        {"humanities", "formal_logic logical_fallacies moral_disputes moral_scenarios philosophy world_religions"},
        {"humanities", "international_law jurisprudence professional_law"},
        {"social sciences", "high_school_government_and_politics public_relations security_studies us_foreign_policy"},
        {"social sciences", "human_sexuality sociology"},
        {"social sciences", "econometrics high_school_macroeconomics high_school_microeconomics"},
        {"social sciences", "high_school_geography"},
        {"social sciences", "high_school_psychology professional_psychology"},
        {"other", "global_facts miscellaneous professional_accounting"},
        {"other", "business_ethics management marketing"},
        {"other", "anatomy clinical_knowledge college_medicine human_aging medical_genetics nutrition professional_medicine virology"},
    };
    std::map<std::string, int> sizes;
    for (const Field& field : fields) {
        std::istringstream subjects(field.subjects);
        for (std::string subject; subjects >> subject;) {
            const char* category = mmlu_category(subject);
            if (!category || category != std::string(field.category))
                fail("%s: expected %s, found %s", subject.c_str(), field.category, category ? category : "none");
            sizes[category]++;
        }
    }
    CHECK(sizes == (std::map<std::string, int>{{"STEM", 18}, {"humanities", 13}, {"social sciences", 12}, {"other", 14}}));
    CHECK(mmlu_category("field_zoology") == nullptr);
}
