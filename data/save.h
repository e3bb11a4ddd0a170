// save.h: what is written besides tensors: the report, and a saved checkpoint's small files.
//
// defines: write_whole_file, require_writable, require_no_input, saved_config, copy_small_files
#pragma once
#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <string>
#include <unistd.h>
#include <vector>
#include "file.h"
#include "json.h"
#include "paths.h"
#include "safetensors.h"

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
        return;
    }
    bool writable = access(path.c_str(), W_OK) == 0;
    if (!writable && errno == ENOENT) {  // a link to what is made at the end, for which the folder must be there
        std::error_code ignored;
        const std::filesystem::path link = path, target = link.parent_path() / std::filesystem::read_symlink(link, ignored);
        const std::string parent = target.parent_path();
        writable = access(parent.empty() ? "." : parent.c_str(), W_OK) == 0;
    }
    if (!writable) fail("%s: the file can't be written: %s", path.c_str(), strerror(errno));
}

// The report must not take the place of a file that the run has read.
inline void require_no_input(const std::string& path) {
    struct stat output, input;
    if (stat(path.c_str(), &output) != 0 || !S_ISREG(output.st_mode)) return;
    for (const auto& stamp : file_stamps())
        if (stat(stamp.first.c_str(), &input) == 0 && input.st_dev == output.st_dev && input.st_ino == output.st_ino)
            fail("%s: expected the name of a new file, found one that this run reads. HINT: name another", path.c_str());
}

// A checkpoint's config.json for what is stored now: plain weights of this dtype, a head that is tied or not. All else stays as it was.
inline std::string saved_config(const std::string& dir, const std::string& dtype, bool tied) {
    Json config = json_parse_file(dir + "/config.json", limit_line);
    const bool has_new = config.find("dtype"), has_old = config.find("torch_dtype");
    if (has_new) json_set_string(config, "dtype", dtype);
    if (has_old || !has_new) json_set_string(config, "torch_dtype", dtype);
    for (size_t i = config.object.size(); i-- > 0;) {
        auto& member = config.object[i];
        if (member.first == "tie_word_embeddings") member.second.type = Json::BOOL, member.second.boolean = tied;
        // What was packed is not any more: the weights are written as plain ones.
        if (member.first == "quantization_config" || member.first == "compression_config") config.object.erase(config.object.begin() + i);
    }
    return json_write(config) + "\n";
}

// What a checkpoint's folder has besides weights and what is written anew goes along: tokenizer files, chat templates, a licence.
inline void copy_small_files(CheckpointWriter& writer, const std::string& dir) {
    const uintmax_t most = (uintmax_t)64 << 20;
    std::vector<std::string> names;
    std::error_code error;
    for (const auto& entry : std::filesystem::directory_iterator(dir, error)) {
        const std::string name = entry.path().filename(), extension = entry.path().extension();
        const bool weights = is_word_of(extension, ".safetensors .bin .pt .pth .ckpt .gguf .h5 .msgpack .onnx .npz") ||
                             name.find(".index.json") != std::string::npos;
        const bool anew = is_word_of(name, "config.json quantization.json quantize_config.json quant_config.json hf_quant_config.json");
        const bool left = name == "adapter_config.json";  // of an adapter, which is not read
        std::error_code gone;
        if (weights || anew || left || name[0] == '.' || !entry.is_regular_file(gone) || entry.file_size(gone) > most) continue;
        names.push_back(name);
    }
    if (error) fail("%s: the folder can't be listed: %s", dir.c_str(), error.message().c_str());
    std::sort(names.begin(), names.end());
    for (const std::string& name : names) writer.copy_file(dir + "/" + name);
}
