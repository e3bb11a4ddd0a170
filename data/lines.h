// lines.h: a text file by line. The file is memory-mapped and only the line starts are kept, so a C4 shard of 800 MB is
// open within a second and its documents are read when they are asked for.
//
// defines: LineFile
#pragma once
#include "error.h"
#include "file.h"
#include "json.h"
#include <string>
#include <string_view>
#include <vector>

struct LineFile {
    MappedFile file;
    std::vector<size_t> starts;  // [count + 1]: where each line begins, and where one after the last would

    explicit LineFile(const std::string& path) : file(path) {
        size_t at = 0;
        while (at < file.size) {
            starts.push_back(at);
            const char* newline = (const char*)memchr(file.data + at, '\n', file.size - at);
            at = newline ? (size_t)(newline - file.data) + 1 : file.size + 1;  // the last line may lack its newline
        }
        starts.push_back(at);
    }

    size_t count() const { return starts.size() - 1; }

    // Line i, counted from 0, without its LF or CRLF. The view lives as long as the file.
    std::string_view line(size_t i) const {
        if (i >= count()) fail("%s: line %zu was asked for, the file has %zu", file.path.c_str(), i + 1, count());
        std::string_view text(file.data + starts[i], starts[i + 1] - 1 - starts[i]);
        if (!text.empty() && text.back() == '\r') text.remove_suffix(1);
        return text;
    }

    // "path:7", as errors name a line.
    std::string name(size_t i) const { return file.path + ":" + std::to_string(i + 1); }

    // Line i of a JSONL file.
    Json json(size_t i) const {
        std::string_view text = line(i);
        return json_parse(text.data(), text.size(), name(i));
    }
};
