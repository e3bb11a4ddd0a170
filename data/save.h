// save.h: what is written besides tensors: the report, and a saved checkpoint's small files.
//
// defines: write_whole_file, require_writable, saved_config, copy_small_files
#pragma once
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <string>
#include <unistd.h>
#include "file.h"
#include "safetensors.h"

// A file that is there whole or not at all.
inline void write_whole_file(const std::string& path, const std::string& text) {
    const std::string temporary = path + ".tmp-" + std::to_string(getpid());
    write_file(temporary, text);
    if (rename(temporary.c_str(), path.c_str()) != 0) {
        const int error = errno;
        remove(temporary.c_str());
        fail("%s: the file could not be written: %s", path.c_str(), strerror(error));
    }
}

// A report that could not be written at the end would be hours lost: it is tried before the work starts.
inline void require_writable(const std::string& path) {
    const std::string temporary = path + ".tmp-" + std::to_string(getpid());
    write_file(temporary, "");
    remove(temporary.c_str());
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
