// json.h: a strict JSON reader (RFC 8259) and what it takes to write JSON. Nothing beyond the standard is accepted: no
// comments, no trailing commas, no garbage after the value. Also refused: text that isn't UTF-8, a key that appears
// twice, a surrogate without its other half (it has no UTF-8 form), a number beyond double, nesting deeper than
// json_max_depth, and a file of more bytes or values than its reader expects: a value takes about 100 bytes of memory, and "[]" or "0,"
// only two in the file.
//
// defines: Json, JsonLimit, json_parse, json_parse_file, json_get, json_int, json_number, json_string, json_bool, json_array,
//          json_object, json_quote, json_format, json_set_string, json_write
#pragma once
#include "error.h"
#include "file.h"
#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <string>
#include <string_view>
#include <unordered_set>
#include <utility>
#include <vector>

constexpr int json_max_depth = 128;

// The most that a reader accepts. Settings are a few kilobytes, and a megabyte where a model's modules are listed; a vocabulary of a
// quarter of a million tokens comes with half a million merges, 33 MB of at most 1.9 million values; a safetensors header has its own
// limit of 100 MB. A line is a document, and so may config.json be: GPTQ's can hold all calibration texts.
struct JsonLimit {
    size_t bytes, values;
};
constexpr JsonLimit limit_settings = {4u << 20, 1u << 19}, limit_vocabulary = {256u << 20, 1u << 22}, limit_line = {64u << 20, 1u << 20},
                    limit_header = {100u << 20, 1u << 22};

struct Json {
    enum Type { NUL, BOOL, NUMBER, STRING, ARRAY, OBJECT };
    Type type = NUL;
    bool boolean = false;
    bool is_integer = false;  // a NUMBER written without fraction or exponent that fits `integer`, exactly
    long long integer = 0;
    double number = 0;   // of every NUMBER, integers too
    std::string string;  // of a STRING; of a NUMBER its digits, as the file has them
    std::vector<Json> array;
    std::vector<std::pair<std::string, Json>> object;  // in the file's order

    const Json* find(std::string_view key) const;  // null if it isn't there; looks at one key after the other
};

inline const Json* Json::find(std::string_view key) const {
    for (const auto& member : object) {
        if (member.first == key) return &member.second;
    }
    return nullptr;
}

inline std::string json_quote(std::string_view s);

// ---- reading ----

struct JsonParser {
    const char *begin, *p, *end;
    const std::string& what;  // names the text in errors
    size_t most_values;
    int depth = 0;
    size_t values = 0;

    [[noreturn]] void error(const char* at, const std::string& problem) const {
        size_t line = 1, column = 1;
        for (const char* s = begin; s < at; s++) {
            column = *s == '\n' ? 1 : column + 1;
            if (*s == '\n') line++;
        }
        std::string place = format("column %zu", column);
        if (std::find(begin, end, '\n') != end) place = format("line %zu, ", line) + place;
        fail("%s: broken JSON at %s: %s. HINT: the file may be truncated or damaged; get it again", what.c_str(),
             place.c_str(), problem.c_str());
    }

    [[noreturn]] void expected(const char* at, const std::string& wanted) const {
        std::string found = "the end of the text";
        if (at < end) {
            unsigned char c = (unsigned char)*at;
            found = c > 0x20 && c < 0x7F ? format("'%c'", c) : format("byte 0x%02X", c);
        }
        error(at, "expected " + wanted + ", found " + found);
    }

    void skip_space() {
        while (p < end && (*p == ' ' || *p == '\n' || *p == '\r' || *p == '\t')) p++;
    }

    bool accept(char c) {
        if (p == end || *p != c) return false;
        p++;
        return true;
    }

    void literal(const char* word) {
        size_t n = strlen(word);
        if ((size_t)(end - p) < n || memcmp(p, word, n) != 0) expected(p, format("a value (such as %s)", word));
        p += n;
    }

    void digits(const char* where) {
        if (p == end || *p < '0' || *p > '9') expected(p, where);
        while (p < end && *p >= '0' && *p <= '9') p++;
    }

    void parse_number(Json& value) {
        const char* start = p;
        bool whole = true;
        accept('-');
        if (!accept('0')) digits("a digit");  // a leading zero stands alone
        if (accept('.')) {
            whole = false;
            digits("a digit after the decimal point");
        }
        if (p < end && (*p == 'e' || *p == 'E')) {
            whole = false;
            p++;
            if (!accept('+')) accept('-');
            digits("a digit in the exponent");
        }
        value.type = Json::NUMBER;
        value.is_integer = whole && std::from_chars(start, p, value.integer).ec == std::errc();
        value.string.assign(start, p);
        value.number = strtod(value.string.c_str(), nullptr);
        if (std::isinf(value.number)) error(start, "the number is beyond the range of double");
    }

    unsigned parse_hex4() {
        unsigned code = 0;
        for (int i = 0; i < 4; i++, p++) {
            const char* alphabet = "0123456789abcdefABCDEF";
            const char* digit = p < end ? (const char*)memchr(alphabet, *p, 22) : nullptr;
            if (!digit) expected(p, "four hexadecimal digits after \\u");
            unsigned value = (unsigned)(digit - alphabet);
            code = code * 16 + (value < 16 ? value : value - 6);
        }
        return code;
    }

    // After "\u": one or, for a surrogate pair, two groups of four digits, appended as UTF-8.
    void parse_unicode_escape(std::string& out) {
        const char* start = p - 2;
        unsigned code = parse_hex4();
        if (code >= 0xD800 && code < 0xDC00) {
            if (!accept('\\') || !accept('u')) error(start, "half of a surrogate pair stands alone");
            unsigned low = parse_hex4();
            if (low < 0xDC00 || low > 0xDFFF) error(start, "half of a surrogate pair stands alone");
            code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
        } else if (code >= 0xDC00 && code < 0xE000) {
            error(start, "half of a surrogate pair stands alone");
        }
        if (code < 0x80) {
            out += (char)code;
        } else if (code < 0x800) {
            out += (char)(0xC0 | code >> 6);
            out += (char)(0x80 | (code & 63));
        } else if (code < 0x10000) {
            out += (char)(0xE0 | code >> 12);
            out += (char)(0x80 | (code >> 6 & 63));
            out += (char)(0x80 | (code & 63));
        } else {
            out += (char)(0xF0 | code >> 18);
            out += (char)(0x80 | (code >> 12 & 63));
            out += (char)(0x80 | (code >> 6 & 63));
            out += (char)(0x80 | (code & 63));
        }
    }

    void parse_string(std::string& out) {
        p++;  // the opening quote
        for (;;) {
            const char* run = p;
            while (p < end && *p != '"' && *p != '\\' && (unsigned char)*p >= 0x20) p++;
            out.append(run, p);
            if (p == end) expected(p, "a closing quote");
            if (accept('"')) return;
            if (!accept('\\')) expected(p, "control characters in strings to be escaped");
            if (p == end) expected(p, "an escape after \\");
            const char* escapes = "\"\\/bfnrt";
            const char* escape = (const char*)memchr(escapes, *p, 8);
            if (escape) {
                out += "\"\\/\b\f\n\r\t"[escape - escapes];
                p++;
            } else if (accept('u')) {
                parse_unicode_escape(out);
            } else {
                expected(p, "one of \" \\ / b f n r t u after \\");
            }
        }
    }

    void parse_array(Json& value) {
        value.type = Json::ARRAY;
        p++;
        skip_space();
        if (accept(']')) return;
        do {
            value.array.emplace_back();
            parse_value(value.array.back());
        } while (accept(','));
        if (!accept(']')) expected(p, "',' or ']' in an array");
    }

    void parse_object(Json& value) {
        value.type = Json::OBJECT;
        p++;
        skip_space();
        if (accept('}')) return;
        do {
            skip_space();
            if (p == end || *p != '"') expected(p, "a key in double quotes");
            value.object.emplace_back();
            parse_string(value.object.back().first);
            skip_space();
            if (!accept(':')) expected(p, "':' after a key");
            parse_value(value.object.back().second);
        } while (accept(','));
        if (!accept('}')) expected(p, "',' or '}' in an object");
        std::unordered_set<std::string_view> keys;
        keys.reserve(value.object.size());
        for (const auto& member : value.object) {
            if (keys.insert(member.first).second) continue;
            error(p - 1, "the object that ends here has the key " + json_quote(member.first) + " twice");
        }
    }

    // A value and the blanks around it.
    void parse_value(Json& value) {
        skip_space();
        if (p == end) expected(p, "a value");
        if (++values > most_values) error(p, format("more than %zu values", most_values));
        if (++depth > json_max_depth) error(p, format("more than %d nested arrays and objects", json_max_depth));
        switch (*p) {
        case '{': parse_object(value); break;
        case '[': parse_array(value); break;
        case '"':
            value.type = Json::STRING;
            parse_string(value.string);
            break;
        case 't':
        case 'f':
            value.type = Json::BOOL;
            value.boolean = *p == 't';
            literal(value.boolean ? "true" : "false");
            break;
        case 'n': literal("null"); break;
        default:
            if (*p != '-' && (*p < '0' || *p > '9')) expected(p, "a value");
            parse_number(value);
        }
        depth--;
        skip_space();
    }
};

// The value in text [n]. `what` names the text in errors: a file, or "file:line".
inline Json json_parse(const char* text, size_t n, const std::string& what, JsonLimit limit = limit_line) {
    if (n > limit.bytes)
        fail("%s: expected at most %zu bytes of JSON, found %zu. HINT: is this the file it should be?", what.c_str(), limit.bytes, n);
    JsonParser parser = {text, text, text + n, what, limit.values};
    size_t bad = utf8_invalid_at(text, n);
    if (bad != std::string::npos) parser.expected(text + bad, "UTF-8");
    Json value;
    parser.parse_value(value);
    if (parser.p != parser.end) parser.expected(parser.p, "nothing after the value");
    return value;
}

inline Json json_parse_file(const std::string& path, JsonLimit limit = limit_settings) {
    MappedFile file(path);
    const std::string_view text = file_text(file);
    return json_parse(text.data(), text.size(), path, limit);
}

// ---- members of an object, checked ----

// What a value is, for error sentences.
inline std::string json_describe(const Json& value) {
    switch (value.type) {
    case Json::NUL: return "null";
    case Json::BOOL: return value.boolean ? "true" : "false";
    case Json::NUMBER:
        return value.is_integer ? format("the number %lld", value.integer) : format("the number %.17g", value.number);
    case Json::STRING: return "the string " + json_quote(value.string.substr(0, 60));
    case Json::ARRAY: return format("an array of %zu", value.array.size());
    default: return format("an object of %zu keys", value.object.size());
    }
}

// The member `key` of an object, whatever its type; an error naming `what` if it isn't there.
inline const Json& json_get(const Json& object, const char* key, const std::string& what) {
    if (object.type != Json::OBJECT)
        fail("%s: expected an object with \"%s\", found %s", what.c_str(), key, json_describe(object).c_str());
    const Json* member = object.find(key);
    if (!member) fail("%s: \"%s\" is missing. HINT: is the file whole, and what it should be?", what.c_str(), key);
    return *member;
}

[[noreturn]] inline void json_wrong_type(const std::string& what, const char* key, const char* expected,
                                         const Json& found) {
    fail("%s: \"%s\" should be %s, found %s. HINT: is the file what it should be?", what.c_str(), key, expected, json_describe(found).c_str());
}

inline long long json_int(const Json& object, const char* key, const std::string& what) {
    const Json& member = json_get(object, key, what);
    if (!member.is_integer) json_wrong_type(what, key, "an integer", member);
    return member.integer;
}

inline double json_number(const Json& object, const char* key, const std::string& what) {
    const Json& member = json_get(object, key, what);
    if (member.type != Json::NUMBER) json_wrong_type(what, key, "a number", member);
    return member.number;
}

inline bool json_bool(const Json& object, const char* key, const std::string& what) {
    const Json& member = json_get(object, key, what);
    if (member.type != Json::BOOL) json_wrong_type(what, key, "true or false", member);
    return member.boolean;
}

inline const std::string& json_string(const Json& object, const char* key, const std::string& what) {
    const Json& member = json_get(object, key, what);
    if (member.type != Json::STRING) json_wrong_type(what, key, "a string", member);
    return member.string;
}

inline const std::vector<Json>& json_array(const Json& object, const char* key, const std::string& what) {
    const Json& member = json_get(object, key, what);
    if (member.type != Json::ARRAY) json_wrong_type(what, key, "an array", member);
    return member.array;
}

inline const Json& json_object(const Json& object, const char* key, const std::string& what) {
    const Json& member = json_get(object, key, what);
    if (member.type != Json::OBJECT) json_wrong_type(what, key, "an object", member);
    return member;
}

// With a fallback, a member that is absent or null gives the fallback; one of the wrong type is still an error.
inline bool json_absent(const Json& object, const char* key) {
    const Json* member = object.find(key);
    return object.type == Json::OBJECT && (!member || member->type == Json::NUL);
}
inline long long json_int(const Json& object, const char* key, const std::string& what, long long fallback) {
    return json_absent(object, key) ? fallback : json_int(object, key, what);
}
inline double json_number(const Json& object, const char* key, const std::string& what, double fallback) {
    return json_absent(object, key) ? fallback : json_number(object, key, what);
}
inline bool json_bool(const Json& object, const char* key, const std::string& what, bool fallback) {
    return json_absent(object, key) ? fallback : json_bool(object, key, what);
}
inline std::string json_string(const Json& object, const char* key, const std::string& what,
                               const std::string& fallback) {
    return json_absent(object, key) ? fallback : json_string(object, key, what);
}

// ---- writing ----

// s as a JSON string with its quotes. Bytes that aren't UTF-8 (a file name may hold some) become U+FFFD.
inline std::string json_quote(std::string_view s) {
    std::string out = "\"";
    size_t i = 0;
    while (i < s.size()) {
        size_t bad = utf8_invalid_at(s.data() + i, s.size() - i);
        size_t stop = bad == std::string::npos ? s.size() : i + bad;
        for (; i < stop; i++) {
            unsigned char c = (unsigned char)s[i];
            if (c == '"' || c == '\\') {
                out += '\\';
                out += (char)c;
            } else if (c == '\n') {
                out += "\\n";
            } else if (c < 0x20 || c == 0x7F) {
                out += format("\\u%04x", c);
            } else {
                out += (char)c;
            }
        }
        if (i < s.size()) {
            out += "\\ufffd";
            i++;
        }
    }
    return out + "\"";
}

// The shortest decimal that reads back as exactly x. JSON has no NaN and no infinity: they become strings.
inline std::string json_format(double x) {
    if (std::isnan(x)) return "\"NaN\"";
    if (std::isinf(x)) return x < 0 ? "\"-Infinity\"" : "\"Infinity\"";
    char text[32];
    return std::string(text, std::to_chars(text, text + sizeof text, x).ptr);
}

// The member `key` of an object becomes a string, where it stands, or at the end if there is none.
inline void json_set_string(Json& object, const std::string& key, const std::string& text) {
    Json value;
    value.type = Json::STRING;
    value.string = text;
    for (auto& member : object.object) {
        if (member.first != key) continue;
        member.second = value;
        return;
    }
    object.object.emplace_back(key, value);
}

// The value as text, a member or element a line. Keys keep their order and numbers their digits, so a file that is read, changed in
// one place and written says the same in all others.
inline std::string json_write(const Json& value, int indent = 0) {
    const std::string inner = "\n" + std::string((size_t)indent + 2, ' '), outer = "\n" + std::string((size_t)indent, ' ');
    std::string text;
    switch (value.type) {
    case Json::NUL: return "null";
    case Json::BOOL: return value.boolean ? "true" : "false";
    case Json::NUMBER:
        if (!value.string.empty()) return value.string;
        return value.is_integer ? std::to_string(value.integer) : json_format(value.number);
    case Json::STRING: return json_quote(value.string);
    case Json::ARRAY:
        for (const Json& element : value.array) text += (text.empty() ? "" : ",") + inner + json_write(element, indent + 2);
        return text.empty() ? "[]" : "[" + text + outer + "]";
    default:
        for (const auto& member : value.object)
            text += (text.empty() ? "" : ",") + inner + json_quote(member.first) + ": " + json_write(member.second, indent + 2);
        return text.empty() ? "{}" : "{" + text + outer + "}";
    }
}
