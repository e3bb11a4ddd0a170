// save.h: what is written besides tensors: the report, and a saved checkpoint's small files.
//
// defines: write_whole_file, require_writable, saved_config, copy_small_files
#pragma once
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <string>
#include <unistd.h>
#include "file.h"
#include "safetensors.h"

// Whether `path` is there and no ordinary file: a link, a device, a FIFO. Such a thing is written through, never replaced.
inline bool is_special_file(const std::string& path) {
    std::error_code ignored;
    const auto status = std::filesystem::symlink_status(path, ignored);
    return std::filesystem::exists(status) && !std::filesystem::is_regular_file(status);
}

// A file that is there whole or not at all.
inline void write_whole_file(const std::string& path, const std::string& text) {
    if (is_special_file(path)) {
        write_file(path, text);
        return;
    }
    Temporary file(path, false);
    write_file(file.path, text);
    file.rename_to_target();
}

// A report that could not be written at the end would be hours lost: it is tried before the work starts.
inline void require_writable(const std::string& path) {
    if (is_directory(path)) fail("%s: expected the name of a file, found a folder. HINT: %s/report.json", path.c_str(), path.c_str());
    if (!is_special_file(path)) {
        Temporary attempt(path, false);
    } else if (access(path.c_str(), F_OK) == 0 && access(path.c_str(), W_OK) != 0) {
        fail("%s: the file can't be written: %s", path.c_str(), strerror(errno));
    }
}

// A checkpoint's config.json with the dtype that is stored now.
inline std::string saved_config(const std::string& dir, const std::string& dtype) {
    MappedFile file(dir + "/config.json");
    std::string text(file.data, file.size);
    for (const char* key : {"\"torch_dtype\"", "\"dtype\""}) {
        const size_t at = text.find(key);
        if (at == std::string::npos) continue;
        const size_t open = text.find('"', text.find(':', at)), close = text.find('"', open + 1);
        if (close != std::string::npos) text.replace(open + 1, close - open - 1, dtype);
    }
    return text;
}

// What a checkpoint's folder has besides config.json and weights goes along.
inline void copy_small_files(CheckpointWriter& writer, const std::string& dir) {
    for (const char* name : {"tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "generation_config.json"})
        if (file_exists(dir + "/" + name)) writer.copy_file(dir + "/" + name);
}
