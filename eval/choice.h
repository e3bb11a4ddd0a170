// choice.h: the six zero-shot tasks, as lm-evaluation-harness v0.4 defines them (lm_eval/tasks/). Every one is a file of
// questions; a question has choices, each a context and a continuation; the choice whose continuation is the most probable is the answer,
// the first of them on ties.
//
//     acc       the share of questions answered rightly: what the paper prints
//     acc_norm  the same with every sum divided by the length of its choice in code points (not bytes), without the leading space
//
// Symbols: score = sum over the continuation's tokens of log p(token | what comes before).
// defines: Choice, Question, QuestionSet, hellaswag_text, CHOICE_TASKS, choice_set, question_requests, request_scores,
//          QuestionResult, question_result, question_lines, set_variant
#pragma once
#include <algorithm>
#include <cmath>
#include <string>
#include <vector>
#include "../data/json.h"
#include "../data/lines.h"
#include "../tokenizer/python_string.h"
#include "estimate.h"
// defines: Request, encode_request, Trie
#include "trie.h"

struct Choice {
    std::string context, continuation;
    int length;  // code points of the choice itself
};

struct Question {
    std::vector<Choice> choices;
    int gold;
    int subject = 0;                    // an index into the set's subjects
    std::vector<int> context_ids = {};  // of the context that all choices share, where it is known already
};

struct QuestionSet {
    std::string name, variant;
    bool official = false;  // the set that the paper's numbers are of, as far as its size tells
    std::vector<Question> questions;
    bool normalized = false;            // acc_norm is defined
    bool letters = false;               // continuations are single letters, tokenized apart from the context
    bool lm_eval_style = false;         // of MMLU, whose letters are otherwise compared by their logits
    std::vector<std::string> subjects;  // of MMLU
};

// ---------------------------------------------------------------------------------------------------------------------
// The tasks. Each turns one line of its file into a question; `where` names the line, `label` is the line of the labels file.

// The i-th choice, a space before it, after the context.
inline Choice spaced_choice(const std::string& context, const std::string& choice, const std::string& where) {
    if (choice.empty()) fail("%s: expected a choice, found an empty text", where.c_str());
    return {context, " " + choice, code_points(choice)};
}

inline int checked_label(long long label, size_t n_choices, const std::string& where) {
    if (label < 0 || label >= (long long)n_choices)
        fail("%s: expected a label from 0 to %zu, found %lld", where.c_str(), n_choices - 1, label);
    return (int)label;
}

inline Question piqa_question(const Json& j, const std::string& where, const std::string& label) {
    const std::string context = "Question: " + json_string(j, "goal", where) + "\nAnswer:";
    if (label != "0" && label != "1")
        fail("%s: expected 0 or 1 in the same line of the labels file, found \"%s\"", where.c_str(), label.c_str());
    return {{spaced_choice(context, json_string(j, "sol1", where), where),
             spaced_choice(context, json_string(j, "sol2", where), where)},
            label[0] - '0'};
}

// Labels are letters in most questions, digits in some; the gold choice is the one that has the label answerKey.
inline Question arc_question(const Json& j, const std::string& where, const std::string&) {
    const Json& q = json_object(j, "question", where);
    const std::string context = "Question: " + json_string(q, "stem", where) + "\nAnswer:",
                      key = json_string(j, "answerKey", where);
    Question question{{}, -1};
    for (const Json& choice : json_array(q, "choices", where)) {
        if (json_string(choice, "label", where) == key) {
            if (question.gold >= 0) fail("%s: expected one choice labelled \"%s\", found two", where.c_str(), key.c_str());
            question.gold = (int)question.choices.size();
        }
        question.choices.push_back(spaced_choice(context, json_string(choice, "text", where), where));
        if (question.choices.size() > 26) fail("%s: expected up to 26 choices, found more", where.c_str());
    }
    if (question.gold < 0) fail("%s: expected a choice labelled \"%s\", the answerKey, found none", where.c_str(), key.c_str());
    return question;
}

// WikiHow's marks taken out: strip, " [title]" to ". ", [anything] to nothing, two spaces to one in one pass. No second strip.
inline std::string hellaswag_text(const std::string& text) {
    auto replaced = [](const std::string& s, const std::string& from, const std::string& to) {
        std::string out;
        size_t at = 0;
        for (size_t found; (found = s.find(from, at)) != std::string::npos; at = found + from.size())
            out.append(s, at, found - at).append(to);
        return out.append(s, at);
    };
    const std::string titled = replaced(std::string(python_strip(text)), " [title]", ". ");
    std::string out;
    size_t stop = 0;  // the first ] or line end behind the last [ that was seen
    for (size_t i = 0; i < titled.size(); i++) {
        if (titled[i] == '[' && stop <= i) stop = std::min(titled.find_first_of("]\n", i), titled.size());
        if (titled[i] == '[' && stop < titled.size() && titled[stop] == ']') i = stop;
        else out += titled[i];
    }
    return replaced(out, "  ", " ");
}

inline Question hellaswag_question(const Json& j, const std::string& where, const std::string&) {
    const std::string context = hellaswag_text(json_string(j, "activity_label", where) + ": " + json_string(j, "ctx_a", where) +
                                               " " + capitalize(json_string(j, "ctx_b", where)));
    Question question;
    for (const Json& ending : json_array(j, "endings", where)) {
        if (ending.type != Json::STRING)
            fail("%s: expected endings that are texts, found %s", where.c_str(), json_describe(ending).c_str());
        question.choices.push_back(spaced_choice(context, hellaswag_text(ending.string), where));
    }
    if (question.choices.size() != 4) fail("%s: expected 4 endings, found %zu", where.c_str(), question.choices.size());
    question.gold = checked_label(json_int(j, "label", where), 4, where);
    return question;
}

// Partial scoring: the candidates stand in the context, and what is scored is the text behind the blank, the same for both.
inline Question winogrande_question(const Json& j, const std::string& where, const std::string&) {
    const std::string sentence = json_string(j, "sentence", where), answer = json_string(j, "answer", where);
    const size_t blank = sentence.find('_');
    if (blank == std::string::npos) fail("%s: expected a sentence with a blank (_), found none", where.c_str());
    if (answer != "1" && answer != "2") fail("%s: expected the answer 1 or 2, found \"%s\"", where.c_str(), answer.c_str());
    const std::string rest(python_strip(std::string_view(sentence).substr(blank + 1)));
    Question question{{}, answer[0] - '1'};
    for (const char* option : {"option1", "option2"}) {
        const std::string candidate = json_string(j, option, where);
        if (candidate.empty()) fail("%s: expected a candidate in %s, found an empty text", where.c_str(), option);
        question.choices.push_back(spaced_choice(sentence.substr(0, blank) + candidate, rest, where));
    }
    return question;
}

inline Question boolq_question(const Json& j, const std::string& where, const std::string&) {
    const std::string context =
        json_string(j, "passage", where) + "\nQuestion: " + json_string(j, "question", where) + "?\nAnswer:";
    const Json& label = json_get(j, "label", where);  // true and false in SuperGLUE's own file, 1 and 0 in copies of it
    const long long gold = label.type == Json::BOOL ? label.boolean : json_int(j, "label", where);
    return {{spaced_choice(context, "no", where), spaced_choice(context, "yes", where)}, checked_label(gold, 2, where)};
}

struct ChoiceTask {
    const char *name, *split, *file, *labels;  // labels: a second file with a label a line, or null
    size_t n;                                  // questions of the official set
    bool normalized;
    Question (*question)(const Json&, const std::string& where, const std::string& label);
};

static const ChoiceTask CHOICE_TASKS[] = {
    {"piqa", "validation", "piqa/valid.jsonl", "piqa/valid-labels.lst", 1838, true, piqa_question},
    {"arc_easy", "test", "arc/ARC-Easy-Test.jsonl", nullptr, 2376, true, arc_question},
    {"arc_challenge", "test", "arc/ARC-Challenge-Test.jsonl", nullptr, 1172, true, arc_question},
    {"hellaswag", "validation", "hellaswag/hellaswag_val.jsonl", nullptr, 10042, true, hellaswag_question},
    {"winogrande", "validation, partial scoring", "winogrande/dev.jsonl", nullptr, 1267, false, winogrande_question},
    {"boolq", "validation", "boolq/val.jsonl", nullptr, 3270, false, boolq_question},
};

// What the result line says of a set that is not the official one, or not all of it.
inline std::string set_variant(const std::string& split, size_t found, size_t official, size_t limit) {
    std::string variant = split;
    if (found != official) variant += format(", %zu questions, not the official %zu", found, official);
    if (limit && limit < found) variant += format(", first %zu only", limit);
    return variant;
}

// The questions of a task; `limit` > 0: only the first so many. Every line of the file is checked even so.
inline QuestionSet choice_set(const std::string& name, const std::string& data_dir, size_t limit) {
    const ChoiceTask* task = nullptr;
    for (const ChoiceTask& t : CHOICE_TASKS)
        if (name == t.name) task = &t;
    if (!task) fail("%s: there is no such task of choices", name.c_str());
    auto open = [&](const char* file) {
        const std::string path = data_dir + "/" + file;
        if (!file_exists(path))
            fail("%s: expected the questions of %s, found no such file. HINT: scripts/download.sh %.*s, or --data DIR",
                 path.c_str(), task->name, (int)strcspn(task->file, "/"), task->file);
        return LineFile(path);
    };
    const LineFile lines = open(task->file);
    if (lines.count() == 0) fail("%s: expected questions, found an empty file", lines.file.path.c_str());
    std::vector<std::string> labels(lines.count());
    if (task->labels) {
        const LineFile file = open(task->labels);
        if (file.count() != lines.count())
            fail("%s:%zu: expected %zu labels, one for each question of %s, found %zu", file.file.path.c_str(), file.count(),
                 lines.count(), lines.file.path.c_str(), file.count());
        for (size_t i = 0; i < labels.size(); i++) labels[i] = file.line(i);
    }
    QuestionSet set;
    set.name = name;
    set.variant = set_variant(task->split, lines.count(), task->n, limit);
    set.official = lines.count() == task->n;
    set.normalized = task->normalized;
    for (size_t i = 0; i < lines.count(); i++) {
        Question question = task->question(lines.json(i), lines.name(i), labels[i]);
        if (question.choices.size() < 2)
            fail("%s: expected at least two choices, found %zu", lines.name(i).c_str(), question.choices.size());
        if (!limit || i < limit) set.questions.push_back(std::move(question));
    }
    return set;
}

// ---------------------------------------------------------------------------------------------------------------------
// From questions to requests, and from their scores to the result

// One request for every choice of every question, in order.
inline std::vector<Request> question_requests(const Tokenizer& tokenizer, const QuestionSet& set) {
    std::vector<Request> requests;
    for (const Question& q : set.questions)
        for (const Choice& c : q.choices) {
            if (!set.letters) {
                requests.push_back(encode_request(tokenizer, c.context, c.continuation));
                continue;
            }
            Request r{q.context_ids, (int)q.context_ids.size()};
            const std::vector<int> letter = tokenizer_encode(tokenizer, c.continuation);
            if (letter.empty() || r.tokens.empty())
                fail("%s: the tokenizer has no token for %s. HINT: does it belong to the model?", set.name.c_str(),
                     letter.empty() ? json_quote(c.continuation).c_str() : "a question's text");
            r.tokens.push_back(letter.back());
            requests.push_back(std::move(r));
        }
    return requests;
}

// To the nearest bf16 number.
inline float rounded_to_bf16(float x) { return to_float(to_bf16(x)); }

// The score of every request: the sum of what was found for its continuation's tokens (values: one for each target of the trie).
// bf16: as the harness computes it from bf16 logits, where log p and the sum are rounded, so that long continuations tie.
inline std::vector<double> request_scores(const Trie& trie, const std::vector<float>& values, bool bf16) {
    std::vector<double> scores;
    for (const std::vector<int>& wanted : trie.wanted) {
        double sum = 0;
        float rounded = 0;  // torch sums bf16 in float
        for (int k : wanted) {
            sum += values[k];
            rounded += rounded_to_bf16(values[k]);
        }
        scores.push_back(bf16 ? rounded_to_bf16(rounded) : sum);
    }
    return scores;
}

struct QuestionResult {
    std::vector<double> hits, norm_hits;  // 100 or 0, one a question
    Estimate acc, acc_norm;               // percent
};

// scores: one a choice, in the order of questions and choices.
inline QuestionResult question_result(const QuestionSet& set, const std::vector<double>& scores) {
    QuestionResult result;
    size_t k = 0;
    for (const Question& q : set.questions) {
        int best = 0, best_norm = 0;
        for (int i = 0; i < (int)q.choices.size(); i++) {
            auto norm = [&](int c) { return scores[k + c] / q.choices[c].length; };
            if (!std::isfinite(scores[k + i]))
                fail("%s: the score of choice %d of question %zu is not a number", set.name.c_str(), i, result.hits.size());
            if (scores[k + i] > scores[k + best]) best = i;
            if (norm(i) > norm(best_norm)) best_norm = i;
        }
        result.hits.push_back(best == q.gold ? 100 : 0);
        result.norm_hits.push_back(best_norm == q.gold ? 100 : 0);
        k += q.choices.size();
    }
    result.acc = mean_estimate(result.hits), result.acc_norm = mean_estimate(result.norm_hits);
    return result;
}

// Every question's right choice and scores, a JSON object a line, to compare runs question by question.
inline std::string question_lines(const QuestionSet& set, const std::vector<double>& scores) {
    std::string lines;
    size_t k = 0, n = 0;
    for (const Question& q : set.questions) {
        lines += "{\"task\": " + json_quote(set.name) + format(", \"question\": %zu, ", n++);
        if (!set.subjects.empty()) lines += "\"subject\": " + json_quote(set.subjects[q.subject]) + ", ";
        lines += format("\"gold\": %d, \"scores\": [", q.gold);
        for (size_t i = 0; i < q.choices.size(); i++) lines += (i ? ", " : "") + json_format(scores[k++]);
        lines += "]}\n";
    }
    return lines;
}
