// paths.h: where things are, and what they are called.
//
// defines: is_special_file, place_of, same_place, is_inside, project_file, model_name, is_post_trained, download_has
#pragma once
#include <filesystem>
#include <string>
#include <unistd.h>
#include "file.h"

// Whether `path` is there and no ordinary file: a link, a device, a FIFO, or what this program writes to already. Such a thing is written
// through, never replaced.
inline bool is_special_file(const std::string& path) {
    std::error_code ignored;
    const auto status = std::filesystem::symlink_status(path, ignored);
    return std::filesystem::exists(status) && (!std::filesystem::is_regular_file(status) || open_descriptor_of(path) >= 0);
}

// What a path names, links and dots resolved; it need not exist yet.
inline std::string place_of(std::string path) {
    std::error_code error;
    while (path.size() > 1 && path.back() == '/') path.pop_back();
    const std::filesystem::path whole = std::filesystem::weakly_canonical(std::filesystem::absolute(path, error), error);
    return error ? path : whole.string();
}

// Whether two paths name the same file.
inline bool same_place(const std::string& a, const std::string& b) { return place_of(a) == place_of(b); }

// Whether a path is below a folder.
inline bool is_inside(const std::string& path, const std::string& folder) { return place_of(path).rfind(place_of(folder) + "/", 0) == 0; }

// A file of the project, from wherever the program is run: under the current folder, else beside the program.
inline std::string project_file(const std::string& path) {
    if (file_exists(path) || is_directory(path)) return path;
    char exe[4096];
    const ssize_t n = readlink("/proc/self/exe", exe, sizeof exe - 1);
    if (n <= 0) return path;
    const std::string beside = std::string(exe, (size_t)n);
    const std::string candidate = beside.substr(0, beside.rfind('/') + 1) + path;
    return file_exists(candidate) || is_directory(candidate) ? candidate : path;
}

// The model's name from its checkpoint's folder, links and dots resolved; of a hub's snapshot folder, models--ORG--NAME/snapshots/HASH,
// it is NAME. The paper's cells are found by it.
inline std::string model_name(const std::string& dir) {
    std::error_code error;
    std::filesystem::path path = std::filesystem::canonical(dir, error);
    if (error) path = dir;
    const std::string repository = path.parent_path().parent_path().filename();
    if (path.parent_path().filename() == "snapshots" && repository.rfind("models--", 0) == 0) {
        const size_t organization = std::string("models--").size(), name = repository.find("--", organization);
        return printable(repository.substr(name == std::string::npos ? organization : name + 2));
    }
    return printable(path.filename());
}

// Whether a model of this name has learnt to chat, as far as names tell: Qwen3-8B, but not Qwen3-8B-Base; ...-Instruct, ...-Chat.
inline bool is_post_trained(const std::string& name) {
    auto has = [&](const char* word) { return name.find(word) != std::string::npos; };
    return (name.rfind("Qwen3-", 0) == 0 && !has("-Base")) || has("-Instruct") || has("-Chat") || has("-chat");
}

// Whether scripts/download.sh knows a model of this name; test_cli.sh compares the two.
inline bool download_has(const std::string& name) {
    return is_word_of(name, "Qwen3-0.6B Qwen3-1.7B Qwen3-4B Qwen3-8B Qwen3-14B Qwen3-32B Qwen3-0.6B-Base Qwen3-1.7B-Base Qwen3-4B-Base "
                            "Qwen3-8B-Base Qwen3-14B-Base SmolLM2-135M Qwen3-30B-A3B Qwen3-30B-A3B-Base Qwen3-235B-A22B Qwen3-4B-AWQ "
                            "Qwen3-8B-AWQ Qwen3-14B-AWQ Qwen3-32B-AWQ Qwen3-0.6B-GPTQ-Int8 Qwen3-1.7B-GPTQ-Int8 Qwen3-0.6B-FP8 "
                            "Qwen3-1.7B-FP8 Qwen3-4B-FP8 Qwen3-8B-FP8 Qwen3-14B-FP8 Qwen3-32B-FP8 Qwen3-30B-A3B-GPTQ-Int4 "
                            "Qwen3-30B-A3B-FP8 Qwen3-235B-A22B-GPTQ-Int4 Qwen3-235B-A22B-FP8");
}
