// lines.h: a text file by line. The file is memory-mapped and only the lines' places are kept, so a C4 shard of 800 MB is open
// within a second and its documents are read when they are asked for. A line of white space is layout: it is skipped, and counts only
// for the line numbers that errors give.
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
    struct Line {
        size_t start, size;  // bytes, without LF or CRLF
        size_t number;       // in the file, from 1
    };
    MappedFile file;
    std::vector<Line> lines;  // [count]

    explicit LineFile(const std::string& path) : file(path) {
        const std::string_view text = file_text(file);
        const size_t skipped = file.size - text.size();  // a byte-order mark
        for (size_t at = 0, number = 1; at < text.size(); number++) {
            const size_t newline = std::min(text.find('\n', at), text.size());  // the last line may lack its newline
            std::string_view line = text.substr(at, newline - at);
            if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
            if (!is_blank(line)) lines.push_back({skipped + at, line.size(), number});
            at = newline + 1;
        }
    }

    size_t count() const { return lines.size(); }

    // The i-th line, counted from 0. The view lives as long as the file.
    std::string_view line(size_t i) const {
        if (i >= count()) fail("%s: line %zu was asked for, the file has %zu", file.path.c_str(), i + 1, count());
        return {file.data + lines[i].start, lines[i].size};
    }

    // "path:7", as errors name a line.
    std::string name(size_t i) const { return file.path + ":" + std::to_string(lines[i].number); }

    // The i-th line of a JSONL file.
    Json json(size_t i) const {
        std::string_view text = line(i);
        return json_parse(text.data(), text.size(), name(i));
    }
};
