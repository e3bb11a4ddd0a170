// csv.h: comma-separated values as RFC 4180 has them, which MMLU's files need: a field in double quotes may hold
// commas, line ends and doubled quotes. A row ends with LF or CRLF; a CR that stands alone belongs to its field.
// Nothing is trimmed. A line of white space is no row.
//
// defines: CsvRow, csv_parse, csv_parse_file
#pragma once
#include "error.h"
#include "file.h"
#include <algorithm>
#include <string>
#include <vector>

typedef std::vector<std::string> CsvRow;

// The rows of text [n]. `what` names it in errors, together with the line. `lines` becomes the line that each row begins in.
inline std::vector<CsvRow> csv_parse(const char* text, size_t n, const std::string& what, std::vector<size_t>* lines = nullptr) {
    const char *p = text, *end = text + n;
    auto broken = [&](const char* at, const char* problem) {
        size_t line = 1 + (size_t)std::count(text, at, '\n');
        fail("%s:%zu: broken CSV: %s. HINT: the file may be truncated or damaged; get it again", what.c_str(), line,
             problem);
    };
    const size_t bad = utf8_invalid_at(text, n);
    if (bad != std::string::npos) broken(text + bad, "expected UTF-8");

    std::vector<CsvRow> rows;
    size_t line = 1;
    while (p < end) {
        const char* newline = (const char*)memchr(p, '\n', (size_t)(end - p));
        const char* next = newline ? newline + 1 : end;
        if (is_blank({p, (size_t)(next - p)})) {
            p = next, line++;
            continue;
        }
        if (lines) lines->push_back(line);
        const char* start = p;
        CsvRow row;
        for (bool more = true; more;) {
            std::string field;
            const char* open = p;
            bool quoted = p < end && *p == '"';
            if (quoted) {
                for (p++;; p++) {
                    if (p == end) broken(open, "the quote that opens here is never closed");
                    if (*p == '"' && (++p == end || *p != '"')) break;  // a doubled quote is one quote
                    field += *p;
                }
            }
            while (p < end && *p != ',' && *p != '\n' && !(*p == '\r' && p + 1 < end && p[1] == '\n')) {
                if (quoted) broken(p, "expected a comma or the end of the line after a closing quote");
                if (*p == '"') broken(p, "a quote in the middle of a field that doesn't begin with one");
                field += *p++;
            }
            row.push_back(field);
            more = p < end && *p == ',';
            if (p < end && *p == '\r') p++;
            if (p < end) p++;  // the comma or the LF
        }
        line += (size_t)std::count(start, p, '\n');
        rows.push_back(row);
    }
    return rows;
}

inline std::vector<CsvRow> csv_parse_file(const std::string& path, std::vector<size_t>* lines = nullptr) {
    MappedFile file(path);
    const std::string_view text = file_text(file);
    return csv_parse(text.data(), text.size(), path, lines);
}
