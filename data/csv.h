// csv.h: comma-separated values as RFC 4180 has them, which MMLU's files need: a field in double quotes may hold
// commas, line ends and doubled quotes. A row ends with LF or CRLF; a CR that stands alone belongs to its field.
// Nothing is trimmed; an empty line is a row of one empty field.
//
// defines: CsvRow, csv_parse, csv_parse_file
#pragma once
#include "error.h"
#include "file.h"
#include <algorithm>
#include <string>
#include <vector>

typedef std::vector<std::string> CsvRow;

// The rows of text [n]. `what` names it in errors, together with the line.
inline std::vector<CsvRow> csv_parse(const char* text, size_t n, const std::string& what) {
    const char *p = text, *end = text + n;
    auto broken = [&](const char* at, const char* problem) {
        size_t line = 1 + (size_t)std::count(text, at, '\n');
        fail("%s:%zu: broken CSV: %s. HINT: the file may be truncated or damaged; get it again", what.c_str(), line,
             problem);
    };
    const size_t bad = utf8_invalid_at(text, n);
    if (bad != std::string::npos) broken(text + bad, "expected UTF-8");

    std::vector<CsvRow> rows;
    while (p < end) {
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
        rows.push_back(row);
    }
    return rows;
}

inline std::vector<CsvRow> csv_parse_file(const std::string& path) {
    MappedFile file(path);
    return csv_parse(file.data, file.size, path);
}
