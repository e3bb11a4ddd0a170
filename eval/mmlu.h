// mmlu.h: MMLU (Hendrycks et al. 2021), five shots, 57 subjects, 14,042 questions of four choices.
//
// A prompt is a header, up to five solved examples of the subject's dev file, and the question; the answer is the letter with the
// largest logit at its end, A before B on ties; accuracy is the mean over all questions (micro average). Two styles:
//     paper    the code that the paper published (evaluate_hf.py, from hendrycks/test's pull request 13): two spaces before the
//              subject's name, texts as they are, shots left out from the last one on until the prompt has at most 2048 tokens; the
//              letters that are compared have no space before them, although the shots teach " A". Logits are compared.
//     lm-eval  one space, questions stripped, always five shots, letters with a space; log-probabilities are compared.
// The letters' tokens are looked up in the vocabulary. Categories are those of hendrycks/test.
//
// defines: mmlu_set, mmlu_parts
#pragma once
#include <dirent.h>
#include <algorithm>
#include <string>
#include <utility>
#include <vector>
#include "../data/csv.h"
// defines: Question, QuestionSet, set_variant
#include "choice.h"

static constexpr int MMLU_SHOTS = 5, MMLU_PROMPT_TOKENS = 2048;
static constexpr size_t MMLU_QUESTIONS = 14042, MMLU_SUBJECTS = 57, MMLU_FIELD_BYTES = 1 << 16;

const char* mmlu_category(const std::string& subject);

// The rows of a subject's file, each a question, four choices and the right one's letter; anything else is refused.
inline std::vector<CsvRow> mmlu_rows(const std::string& path) {
    if (!file_exists(path))
        fail("%s: expected MMLU's questions, found no such file. HINT: scripts/download.sh mmlu (all-data: every set), or --data DIR", path.c_str());
    std::vector<size_t> lines;  // where each row begins
    std::vector<CsvRow> rows = csv_parse_file(path, &lines);
    if (rows.empty()) fail("%s: expected questions, found an empty file. HINT: scripts/download.sh mmlu", path.c_str());
    for (size_t r = 0; r < rows.size(); r++) {
        const CsvRow& row = rows[r];
        const size_t line = lines[r];
        if (row.size() != 6)
            fail("%s:%zu: expected 6 fields (question, four choices, answer), found %zu", path.c_str(), line, row.size());
        if (row[5].size() != 1 || row[5][0] < 'A' || row[5][0] > 'D')
            fail("%s:%zu: expected the answer A, B, C or D, found \"%s\"", path.c_str(), line, row[5].c_str());
        for (int i = 0; i < 5; i++) {
            if (row[i].empty()) fail("%s:%zu: field %d is empty", path.c_str(), line, i + 1);
            if (row[i].size() > MMLU_FIELD_BYTES)  // a shot is tokenized with every question
                fail("%s:%zu: expected up to %zu bytes in field %d, found %zu", path.c_str(), line, MMLU_FIELD_BYTES, i + 1, row[i].size());
        }
    }
    return rows;
}

// The subjects that have a file NAME_test.csv, in alphabetical order.
inline std::vector<std::string> mmlu_subjects(const std::string& data_dir) {
    const std::string folder = data_dir + "/mmlu/test", ending = "_test.csv";
    std::vector<std::string> subjects;
    if (DIR* dir = opendir(folder.c_str())) {
        while (const dirent* entry = readdir(dir)) {
            const std::string name = entry->d_name;
            if (name.size() > ending.size() && ends_with(name, ending))
                subjects.push_back(name.substr(0, name.size() - ending.size()));
        }
        closedir(dir);
    }
    if (subjects.empty())
        fail("%s: expected MMLU's files, SUBJECT_test.csv, found none. HINT: scripts/download.sh mmlu (all-data: every set), or --data DIR",
             folder.c_str());
    std::sort(subjects.begin(), subjects.end());
    return subjects;
}

// A question as the prompt shows it, without its answer.
inline std::string mmlu_example(const CsvRow& row, bool strip) {
    std::string text = strip ? std::string(python_strip(row[0])) : row[0];
    for (int i = 0; i < 4; i++) text += std::string("\n") + (char)('A' + i) + ". " + row[1 + i];
    return text + "\nAnswer:";
}

// `limit` > 0: only the first so many questions of every subject.
inline QuestionSet mmlu_set(const Tokenizer& tokenizer, const std::string& data_dir, const std::string& style, size_t limit) {
    const bool paper = style == "paper";
    QuestionSet set;
    set.name = "mmlu";
    set.letters = true, set.lm_eval_style = !paper;
    set.subjects = mmlu_subjects(data_dir);
    size_t found = 0;
    for (size_t s = 0; s < set.subjects.size(); s++) {
        std::string words = set.subjects[s];
        std::replace(words.begin(), words.end(), '_', ' ');
        const std::string header =
            "The following are multiple choice questions (with answers) about " + (paper ? " " + words : words) + ".\n\n";
        const std::string dev_path = data_dir + "/mmlu/dev/" + set.subjects[s] + "_dev.csv";
        const std::vector<CsvRow> dev = mmlu_rows(dev_path),
                                  test = mmlu_rows(data_dir + "/mmlu/test/" + set.subjects[s] + "_test.csv");
        if (dev.size() < MMLU_SHOTS)
            fail("%s: expected %d rows for the shots, found %zu", dev_path.c_str(), MMLU_SHOTS, dev.size());
        std::string prefix[MMLU_SHOTS + 1] = {header};  // prefix[k]: header and the first k shots
        for (int k = 0; k < MMLU_SHOTS; k++) prefix[k + 1] = prefix[k] + mmlu_example(dev[k], !paper) + " " + dev[k][5] + "\n\n";
        found += test.size();
        for (size_t r = 0; r < test.size() && (!limit || r < limit); r++) {
            const std::string example = mmlu_example(test[r], !paper);
            Question question{{}, test[r][5][0] - 'A', (int)s};
            int k = MMLU_SHOTS;
            question.context_ids = tokenizer_encode(tokenizer, prefix[k] + example);
            while (paper && k > 0 && question.context_ids.size() > MMLU_PROMPT_TOKENS)
                question.context_ids = tokenizer_encode(tokenizer, prefix[--k] + example);
            for (char letter = 'A'; letter <= 'D'; letter++)
                question.choices.push_back({prefix[k] + example, (paper ? "" : " ") + std::string(1, letter), 1});
            set.questions.push_back(std::move(question));
        }
    }
    set.variant = set_variant("test, 5 shots, " + style + " style", found, MMLU_QUESTIONS, 0);
    const size_t known = (size_t)std::count_if(set.subjects.begin(), set.subjects.end(), mmlu_category);
    const bool subjects = known == MMLU_SUBJECTS && set.subjects.size() == MMLU_SUBJECTS;
    if (!subjects)
        set.variant += format(", %zu subjects of which %zu are known, not the official %zu", set.subjects.size(), known, MMLU_SUBJECTS);
    set.official = found == MMLU_QUESTIONS && subjects;
    if (set.questions.size() < found) set.variant += format(", first %zu of every subject only", limit);
    return set;
}

// The category of a subject in hendrycks/test's categories.py, or null.
inline const char* mmlu_category(const std::string& subject) {
    static const std::pair<const char*, std::vector<const char*>> categories[] = {
        {"STEM",
         {"abstract_algebra", "astronomy", "college_biology", "college_chemistry", "college_computer_science",
          "college_mathematics", "college_physics", "computer_security", "conceptual_physics", "electrical_engineering",
          "elementary_mathematics", "high_school_biology", "high_school_chemistry", "high_school_computer_science",
          "high_school_mathematics", "high_school_physics", "high_school_statistics", "machine_learning"}},
        {"humanities",
         {"formal_logic", "high_school_european_history", "high_school_us_history", "high_school_world_history",
          "international_law", "jurisprudence", "logical_fallacies", "moral_disputes", "moral_scenarios", "philosophy",
          "prehistory", "professional_law", "world_religions"}},
        {"social sciences",
         {"econometrics", "high_school_geography", "high_school_government_and_politics", "high_school_macroeconomics",
          "high_school_microeconomics", "high_school_psychology", "human_sexuality", "professional_psychology", "public_relations",
          "security_studies", "sociology", "us_foreign_policy"}},
        {"other",
         {"anatomy", "business_ethics", "clinical_knowledge", "college_medicine", "global_facts", "human_aging", "management",
          "marketing", "medical_genetics", "miscellaneous", "nutrition", "professional_accounting", "professional_medicine",
          "virology"}},
    };
    for (const auto& category : categories)
        for (const char* name : category.second)
            if (subject == name) return category.first;
    return nullptr;
}

// Accuracy by subject and by category; hits: 100 or 0, one a question.
inline void mmlu_parts(const QuestionSet& set, const std::vector<double>& hits, NamedEstimates& subjects,
                       NamedEstimates& categories) {
    std::vector<std::pair<std::string, std::vector<double>>> by_category;
    for (size_t s = 0; s < set.subjects.size(); s++) {
        std::vector<double> mine;
        for (size_t i = 0; i < hits.size(); i++)
            if (set.questions[i].subject == (int)s) mine.push_back(hits[i]);
        subjects.push_back({set.subjects[s], mean_estimate(mine)});
        const char* category = mmlu_category(set.subjects[s]);
        if (!category) continue;
        size_t c = 0;
        while (c < by_category.size() && by_category[c].first != category) c++;
        if (c == by_category.size()) by_category.push_back({category, {}});
        by_category[c].second.insert(by_category[c].second.end(), mine.begin(), mine.end());
    }
    for (const auto& category : by_category) categories.push_back({category.first, mean_estimate(category.second)});
}
