// token_ids.h: a text file of token ids, one a line.
//
// defines: read_token_ids
#pragma once
#include <charconv>
#include <string_view>
#include <vector>
#include "lines.h"

// The ids, each from 0 to V - 1, at most `most` of them.
inline std::vector<int> read_token_ids(const std::string& path, int V, size_t most = 1 << 20) {
    const LineFile file(path);
    if (file.count() == 0) fail("%s: expected token ids, one a line, found an empty file", path.c_str());
    if (file.count() > most) fail("%s: expected at most %zu token ids, found %zu lines", path.c_str(), most, file.count());
    std::vector<int> ids;
    for (size_t i = 0; i < file.count(); i++) {
        const std::string_view line = file.line(i);
        int id = -1;
        const auto parsed = std::from_chars(line.data(), line.data() + line.size(), id);
        if (parsed.ec != std::errc() || parsed.ptr != line.data() + line.size() || id < 0 || id >= V)
            fail("%s: expected a token id from 0 to %d, found \"%s\"", file.name(i).c_str(), V - 1,
                 std::string(line.substr(0, 80)).c_str());
        ids.push_back(id);
    }
    return ids;
}
