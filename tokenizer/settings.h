// settings.h: what tokenizer.json and tokenizer_config.json may ask for. What is not computed here is refused by name: another setting
// would give other ids, and every number after them would be another model's.
//
// defines: damaged_hint, supported_hint, shown, expect_setting, refuse_sentencepiece, read_splitting, refuse_settings,
//          token_lists, is_token_list, is_token_key, token_lists_of, take_qwen_class
#pragma once
#include <algorithm>
#include <string>
#include <string_view>
#include <vector>
#include "../data/error.h"
#include "../data/json.h"
#include "pieces.h"

inline constexpr const char* damaged_hint = "HINT: the file is damaged or of another model; get it again";
inline constexpr const char* supported_hint =
    "HINT: byte-level tokenizers are supported: those of Qwen2, Qwen3, Llama 3, SmolLM and GPT-2";

// A token as messages show it.
inline std::string shown(const std::string& token) { return json_quote(std::string_view(token).substr(0, 80)); }

// Fails unless the setting `what` is as expected.
inline void expect_setting(const std::string& path, const char* what, const std::string& found, const std::string& expected) {
    if (found == expected) return;
    fail("%s: %s is %s, expected %s. %s", path.c_str(), what, json_quote(found).c_str(), json_quote(expected).c_str(),
         supported_hint);
}
inline void expect_setting(const std::string& path, const char* what, bool found, bool expected) {
    expect_setting(path, what, std::string(found ? "true" : "false"), expected ? "true" : "false");
}

// Tokenizers of SentencePiece have nothing in common with what is read here, so they are refused by that name.
[[noreturn]] inline void refuse_sentencepiece(const std::string& path, const char* because) {
    fail("%s: %s: this is a SentencePiece tokenizer, as Llama 1, Llama 2 and Mistral have it, which isn't supported. %s",
         path.c_str(), because, supported_hint);
}

// ByteLevel, which spells bytes in GPT-2's alphabet, and with use_regex first splits by GPT-2's expression.
inline void read_byte_level(const Json& step, bool use_regex, const std::string& path) {
    expect_setting(path, "ByteLevel's add_prefix_space", json_bool(step, "add_prefix_space", path), false);
    expect_setting(path, "ByteLevel's use_regex", json_bool(step, "use_regex", path, true), use_regex);
}

// How text is split: [Split, ByteLevel] (Qwen, Llama 3), [Digits, ByteLevel] (SmolLM) or ByteLevel alone (GPT-2).
inline Splitting read_splitting(const Json& pre_tokenizer, const std::string& path) {
    Splitting splitting;
    const std::string type = json_string(pre_tokenizer, "type", path);
    if (type == "Metaspace") refuse_sentencepiece(path, "the pre-tokenizer is \"Metaspace\"");
    if (type == "ByteLevel") {
        splitting.gpt2 = true;
        read_byte_level(pre_tokenizer, true, path);
        return splitting;
    }
    expect_setting(path, "the pre-tokenizer", type, "Sequence");
    const std::vector<Json>& steps = json_array(pre_tokenizer, "pretokenizers", path);
    if (steps.size() != 2)
        fail("%s: the pre-tokenizer has %zu steps, expected Split or Digits, and ByteLevel. %s", path.c_str(), steps.size(),
             supported_hint);
    const Json &first = steps[0], &byte_level = steps[1];
    const std::string kind = json_string(first, "type", path);
    expect_setting(path, "the pre-tokenizer's second step", json_string(byte_level, "type", path), "ByteLevel");
    if (kind == "Digits") {
        splitting.gpt2 = true;
        splitting.digits = json_bool(first, "individual_digits", path) ? Splitting::SINGLE : Splitting::RUNS;
        read_byte_level(byte_level, true, path);
        return splitting;
    }
    expect_setting(path, "the pre-tokenizer's first step", kind, "Split");
    expect_setting(path, "the pre-tokenizer's behavior", json_string(first, "behavior", path), "Isolated");
    expect_setting(path, "the pre-tokenizer's invert", json_bool(first, "invert", path), false);
    read_byte_level(byte_level, false, path);
    const std::string& pattern = json_string(json_object(first, "pattern", path), "Regex", path);
    splitting.gpt2 = pattern == gpt2_pattern;
    splitting.max_digits = pattern == llama3_pattern ? 3 : 1;
    if (!splitting.gpt2 && splitting.max_digits == 1)
        expect_setting(path, "the pre-tokenizer's regular expression", pattern, qwen_pattern);
    return splitting;
}

// Settings of tokenizer_config.json that change ids and aren't supported.
inline void refuse_settings(const Json& config, const std::string& path) {
    if (config.type != Json::OBJECT)
        fail("%s: expected an object, found %s. %s", path.c_str(), json_describe(config).c_str(), damaged_hint);
    for (const char* key : {"add_prefix_space", "split_special_tokens", "fix_mistral_regex"})
        expect_setting(path, key, json_bool(config, key, path, false), false);
    if (json_absent(config, "fast_tokenizer_files")) return;
    for (const Json& name : json_array(config, "fast_tokenizer_files", path))  // a file for each version of transformers
        expect_setting(path, "one of fast_tokenizer_files", name.string, "tokenizer.json");
}

inline constexpr const char* token_lists[] = {"model_specific_special_tokens", "extra_special_tokens", "additional_special_tokens"};

inline bool is_token_list(const std::string& key) {
    return std::find(std::begin(token_lists), std::end(token_lists), key) != std::end(token_lists);
}
inline bool is_token_key(const std::string& key) { return key.size() > 6 && key.compare(key.size() - 6, 6, "_token") == 0; }

// How many lists of tokens settings have. Of several, transformers reads some and forgets others, as its version has it; it also forgets
// model_specific_special_tokens beside keys of the model's own.
inline int token_lists_of(const Json& settings) {
    int n = 0, own_keys = 0;
    for (const char* key : token_lists) {
        const Json* list = settings.find(key);
        n += list && !(list->array.empty() && list->object.empty());
    }
    for (const auto& member : settings.object)
        own_keys += is_token_key(member.first) &&
                    !is_word_of(member.first, "bos_token eos_token unk_token sep_token pad_token cls_token mask_token");
    return n + (own_keys > 0 && !json_absent(settings, token_lists[0]));
}

// Whether tokenizer_config.json names Qwen's class, and what that class has where the file doesn't say it.
inline bool take_qwen_class(Json& config, const std::string& path) {
    const std::string kind = json_string(config, "tokenizer_class", path, "");
    if (kind != "Qwen2Tokenizer" && kind != "Qwen2TokenizerFast") return false;
    for (const char* key : {"unk_token", "eos_token", "pad_token"})
        if (!config.find(key)) json_set_string(config, key, "<|endoftext|>");
    return true;
}
