// test_json.cu: the JSON reader and writer, and the UTF-8 check beneath them.
#include "../data/json.h"
#include "temp.h"
#include "test.h"
#include <random>

static Json parse(const std::string& text) {
    // A copy of exactly that size on the heap, so that AddressSanitizer sees a read past its end.
    std::vector<char> exact(text.begin(), text.end());
    return json_parse(exact.data(), exact.size(), "file.json");
}

TEST(json_numbers) {
    struct {
        const char* text;
        bool is_integer;
        long long integer;
        double number;
    } cases[] = {{"0", true, 0, 0.0},
                 {"-1", true, -1, -1.0},
                 {"151645", true, 151645, 151645.0},
                 {"9007199254740993", true, 9007199254740993, 9007199254740992.0},
                 {"9223372036854775807", true, 9223372036854775807, 9223372036854775808.0},
                 {"-9223372036854775808", true, -9223372036854775807 - 1, -9223372036854775808.0},
                 {"9223372036854775808", false, 0, 9223372036854775808.0},
                 {"1000000.0", false, 0, 1e6},
                 {"1e-06", false, 0, 1e-6},
                 {"2.5E+3", false, 0, 2500.0},
                 {" \t\r\n 0.1 \n", false, 0, 0.1},
                 {"1e-400", false, 0, 0.0}};
    for (const auto& c : cases) {
        Json j = parse(c.text);
        CHECK(j.type == Json::NUMBER);
        CHECK_EQ(j.is_integer, c.is_integer);
        if (c.is_integer) CHECK_EQ(j.integer, c.integer);
        CHECK_EQ(j.number, c.number);
    }
}

TEST(json_structure) {
    Json j = parse(" { \"b\" : [ 1 , \"x\", null, true, false, [], {} ] , \"a\" : { \"\" : -2 } } ");
    CHECK(j.type == Json::OBJECT);
    CHECK_EQ(j.object.size(), 2u);
    CHECK_EQ(j.object[0].first, "b");  // the file's order
    CHECK_EQ(j.object[1].first, "a");
    const std::vector<Json>& a = j.find("b")->array;
    CHECK_EQ(a.size(), 7u);
    CHECK(a[0].type == Json::NUMBER && a[1].type == Json::STRING && a[2].type == Json::NUL);
    CHECK(a[3].type == Json::BOOL && a[3].boolean && a[4].type == Json::BOOL && !a[4].boolean);
    CHECK(a[5].type == Json::ARRAY && a[6].type == Json::OBJECT);
    CHECK_EQ(a[1].string, "x");
    CHECK_EQ(j.find("a")->find("")->integer, -2);
    CHECK(j.find("c") == nullptr);
    CHECK(a[0].find("b") == nullptr);
}

TEST(json_strings) {
    CHECK_EQ(parse("\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"").string, "\"\\/\b\f\n\r\t");
    CHECK_EQ(parse("\"\\u0041\\u00e9\\u20AC\\ud83d\\uDE00\"").string, "A\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80");
    CHECK_EQ(parse("\"\\udbff\\udfff\\u07ff\\u0800\\uffff\"").string,
             "\xF4\x8F\xBF\xBF\xDF\xBF\xE0\xA0\x80\xEF\xBF\xBF");
    CHECK_EQ(parse("\"a\\u0000b\"").string, std::string("a\0b", 3));
    CHECK_EQ(parse("\"\xC4\xA0 \xF0\x9F\x98\x80\x7F\"").string, "\xC4\xA0 \xF0\x9F\x98\x80\x7F");
}

TEST(json_errors) {
    struct {
        const char *text, *message;
    } cases[] = {
        {"", "file.json: broken JSON at column 1: expected a value, found the end of the text"},
        {"  ", "column 3: expected a value, found the end"},
        {"{\n \"a\": 1,\n \"b\" 2}", "line 3, column 6: expected ':' after a key, found '2'"},
        {"[1,2", "column 5: expected ',' or ']' in an array, found the end"},
        {"[1,]", "column 4: expected a value, found ']'"},
        {"[1 2]", "column 4: expected ',' or ']' in an array, found '2'"},
        {"{\"a\":1,}", "column 8: expected a key in double quotes, found '}'"},
        {"{a:1}", "expected a key in double quotes, found 'a'"},
        {"{\"a\":1", "expected ',' or '}' in an object"},
        {"{\"a\"", "expected ':' after a key"},
        {"{\"a\":1,\"b\":2,\"a\":3}", "the key \"a\" twice"},
        {"{\"a\":1,\"\\u0061\":3}", "the key \"a\" twice"},
        {"1 2", "column 3: expected nothing after the value, found '2'"},
        {"nul", "expected a value (such as null), found 'n'"},
        {"True", "expected a value, found 'T'"},
        {"NaN", "expected a value, found 'N'"},
        {"// no", "expected a value, found '/'"},
        {"'a'", "expected a value, found '''"},
        {"01", "expected nothing after the value, found '1'"},
        {"+1", "expected a value, found '+'"},
        {".5", "expected a value, found '.'"},
        {"-", "expected a digit, found the end"},
        {"1.", "expected a digit after the decimal point"},
        {"1e", "expected a digit in the exponent"},
        {"1e+x", "expected a digit in the exponent, found 'x'"},
        {"-1e999", "beyond the range of double"},
        {"\"abc", "column 5: expected a closing quote, found the end"},
        {"\"a\nb\"", "control characters in strings to be escaped, found byte 0x0A"},
        {"\"\\x41\"", "after \\, found 'x'"},
        {"\"\\", "expected an escape after \\, found the end"},
        {"\"\\u12", "four hexadecimal digits"},
        {"\"\\u12g4\"", "four hexadecimal digits after \\u, found 'g'"},
        {"\"\\ud800\"", "column 2: half of a surrogate pair stands alone"},
        {"\"\\ud800\\n\"", "half of a surrogate pair stands alone"},
        {"\"\\ud800\\u0041\"", "half of a surrogate pair stands alone"},
        {"\"\\ud800\\ud800\"", "half of a surrogate pair stands alone"},
        {"\"\\udc00\"", "half of a surrogate pair stands alone"},
        {"\"\xFF\"", "column 2: expected UTF-8, found byte 0xFF"},
        {"\xEF\xBB\xBF{}", "expected a value, found byte 0xEF"},
    };
    for (const auto& c : cases) CHECK_ERROR(parse(c.text), c.message);
    CHECK_ERROR(parse(std::string("1\0", 2)), "expected nothing after the value, found byte 0x00");
    CHECK_ERROR(parse(""), "HINT: ");
}

TEST(json_depth) {
    auto nested = [](int depth) { return std::string((size_t)depth, '[') + std::string((size_t)depth, ']'); };
    Json j = parse(nested(json_max_depth));
    int depth = 1;
    for (const Json* p = &j; !p->array.empty(); p = &p->array[0]) depth++;
    CHECK_EQ(depth, json_max_depth);
    CHECK_ERROR(parse(nested(json_max_depth + 1)), "more than 128 nested");
    CHECK_ERROR(parse(std::string(1000000, '[')), "more than 128 nested");
    CHECK_EQ(parse("[" + nested(100) + "," + nested(100) + "]").array.size(), 2u);  // the depth comes back up
}

TEST(json_members) {
    Json j = parse("{\"i\":3,\"x\":0.5,\"s\":\"text\",\"t\":true,\"n\":null,\"a\":[1],\"o\":{\"k\":1}}");
    CHECK_EQ(json_int(j, "i", "f"), 3);
    CHECK_EQ(json_number(j, "i", "f"), 3.0);
    CHECK_EQ(json_number(j, "x", "f"), 0.5);
    CHECK_EQ(json_string(j, "s", "f"), "text");
    CHECK_EQ(json_bool(j, "t", "f"), true);
    CHECK_EQ(json_array(j, "a", "f").size(), 1u);
    CHECK_EQ(json_object(j, "o", "f").object.size(), 1u);
    CHECK_EQ(json_int(j, "n", "f", 7), 7);
    CHECK_EQ(json_int(j, "absent", "f", 8), 8);
    CHECK_EQ(json_int(j, "i", "f", 8), 3);
    CHECK_EQ(json_number(j, "absent", "f", 0.25), 0.25);
    CHECK_EQ(json_string(j, "absent", "f", "d"), "d");
    CHECK_EQ(json_bool(j, "absent", "f", true), true);
    CHECK_ERROR(json_int(j, "x", "f.json"), "f.json: \"x\" should be an integer, found the number 0.5");
    CHECK_ERROR(json_int(j, "s", "f.json", 1), "\"s\" should be an integer, found the string \"text\"");
    CHECK_ERROR(json_number(j, "a", "f"), "\"a\" should be a number, found an array of 1");
    CHECK_ERROR(json_string(j, "i", "f"), "\"i\" should be a string, found the number 3");
    CHECK_ERROR(json_bool(j, "n", "f"), "\"n\" should be true or false, found null");
    CHECK_ERROR(json_array(j, "o", "f"), "\"o\" should be an array, found an object of 1 keys");
    CHECK_ERROR(json_object(j, "t", "f"), "\"t\" should be an object, found true");
    CHECK_ERROR(json_int(j, "absent", "f.json"), "f.json: \"absent\" is missing");
    CHECK_ERROR(json_int(*j.find("a"), "k", "f.json"), "expected an object with \"k\", found an array of 1");
    CHECK_ERROR(json_int(*j.find("a"), "k", "f.json", 1), "expected an object with \"k\", found an array of 1");
}

TEST(json_quote) {
    CHECK_EQ(json_quote("a\"b\\c\n\t\x01\x7F/\xC3\xA9"), "\"a\\\"b\\\\c\\n\\u0009\\u0001\\u007f/\xC3\xA9\"");
    CHECK_EQ(json_quote("\xFF"
                        "a\xC3"),
             "\"\\ufffda\\ufffd\"");
    std::string ascii;
    for (int c = 0; c < 128; c++) ascii += (char)c;
    CHECK_EQ(parse(json_quote(ascii)).string, ascii);
}

TEST(json_format) {
    CHECK_EQ(json_format(0.1), "0.1");
    CHECK_EQ(json_format(151643), "151643");
    CHECK_EQ(json_format(-0.5), "-0.5");
    CHECK_EQ(json_format(NAN), "\"NaN\"");
    CHECK_EQ(json_format(INFINITY), "\"Infinity\"");
    CHECK_EQ(json_format(-INFINITY), "\"-Infinity\"");
    std::mt19937_64 rng(1);
    for (int i = 0; i < 50000; i++) {
        uint64_t bits = rng();
        double x;
        memcpy(&x, &bits, 8);
        if (!std::isfinite(x)) continue;
        std::string text = json_format(x);
        CHECK_EQ(strtod(text.c_str(), nullptr), x);
        CHECK_EQ(parse(text).number, x);
    }
}

// A big object takes a fraction of a second; were keys compared pairwise, it would take minutes.
TEST(json_many_keys) {
    std::string text = "{";
    for (int i = 0; i < 200000; i++) text += format("%s\"key %d\":%d", i ? "," : "", i, i);
    Json j = parse(text + "}");
    CHECK_EQ(j.object.size(), 200000u);
    CHECK_EQ(j.object[123456].second.integer, 123456);
    CHECK_ERROR(parse(text + ",\"key 77\":1}"), "the key \"key 77\" twice");
}

// What is read and written again says the same: keys in their order, numbers by their digits.
TEST(json_written_again) {
    const std::string text = R"({
  "z": 1.0,
  "a": [
    1e-06,
    -0,
    1000000.0,
    123456789012345678901234567890,
    0.1e+1,
    {}
  ],
  "nested": {
    "torch_dtype": "float32",
    "empty": [],
    "t": true,
    "n": null
  },
  "text": "é \"quoted\" \\ \n \u0001"
})";
    CHECK_EQ(json_write(parse(text)), text);
    CHECK_EQ(json_write(parse("[1,\t2 ,{\"a\":\r\n3}]")), "[\n  1,\n  2,\n  {\n    \"a\": 3\n  }\n]");
    Json j = parse(text);
    json_set_string(j, "a", "x");
    json_set_string(j, "new", "y");
    CHECK_EQ(j.object.size(), 5u);
    CHECK_EQ(j.object[1].second.string, "x");
    CHECK_EQ(j.object[4].second.string, "y");
    CHECK_EQ(j.find("nested")->find("torch_dtype")->string, "float32");
    Json made;  // numbers that were not read have no digits yet
    made.type = Json::NUMBER;
    made.number = 0.1;
    CHECK_EQ(json_write(made), "0.1");
    made.is_integer = true, made.integer = -7;
    CHECK_EQ(json_write(made), "-7");
    const std::string path = "data/tiny/config.json";
    const Json config = json_parse_file(path);
    const std::string written = json_write(config), again = json_write(parse(written));
    CHECK_EQ(written, again);
    CHECK_EQ(json_number(parse(written), "rms_norm_eps", path), json_number(config, "rms_norm_eps", path));
}

// A reader says how much it expects; memory is about 100 bytes a value.
TEST(json_limits) {
    TempFolder tmp;
    write_bytes(tmp / "config.json", "[" + std::string(5000000, ' ') + "]");
    CHECK_ERROR(json_parse_file(tmp / "config.json"), "/config.json: expected at most 4194304 bytes of JSON, found 5000002. HINT: ");
    CHECK_EQ(json_parse_file(tmp / "config.json", limit_vocabulary).array.size(), 0u);
    std::string many = "[0";
    for (int i = 0; i < 1000000; i++) many += ",0";
    write_bytes(tmp / "config.json", many + "]");
    CHECK_ERROR(json_parse_file(tmp / "config.json"), "more than 524288 values");
    CHECK_EQ(json_parse_file(tmp / "config.json", limit_vocabulary).array.size(), 1000001u);
    CHECK_ERROR(json_parse("[1,2]", 5, "x", {10, 2}), "x: broken JSON at column 4: more than 2 values");
}

TEST(json_qwen3_vocabulary) {
    const std::string path = shared_data() + "/qwen3-tokenizer/vocab.json";
    Json j = json_parse_file(path);
    CHECK_EQ(j.object.size(), 151643u);
    std::vector<bool> seen(j.object.size());
    for (const auto& member : j.object) {
        CHECK(member.second.is_integer && member.second.integer >= 0 && member.second.integer < 151643);
        CHECK(!seen[(size_t)member.second.integer]);
        seen[(size_t)member.second.integer] = true;
    }
    CHECK_EQ(j.find("!")->integer, 0);
    CHECK_EQ(j.find("\xC4\xA0the")->integer, 279);
}

// Damaged texts are read or refused, but nothing else happens (AddressSanitizer watches).
TEST(json_mutations) {
    const std::string valid = "{\"a\\u00e9\":[1,-2.5e3,true,null,\"x\\ud83d\\ude00\xC3\xA9\"],\"b\":{\"c\":[[],{}]}}";
    const std::string alphabet = "{}[]\",:\\u0d89e-+.tfn \xC3\xA9\xFF";
    std::mt19937 rng(7);
    int read = 0, refused = 0;
    for (int round = 0; round < 20000; round++) {
        std::string text = valid;
        for (int k = 1 + (int)(rng() % 3); k > 0 && !text.empty(); k--) {
            size_t at = rng() % text.size();
            switch (rng() % 4) {
            case 0: text[at] = (char)rng(); break;
            case 1: text[at] = alphabet[rng() % alphabet.size()]; break;
            case 2: text.erase(at, 1 + rng() % 3); break;
            default: text.resize(at);
            }
        }
        try {
            parse(text);
            read++;
        } catch (const std::runtime_error&) {
            refused++;
        }
    }
    CHECK(read > 100);
    CHECK(refused > 1000);
}

// ---- UTF-8 ----

static std::string encode(unsigned code) {
    std::string s;
    if (code < 0x80) {
        s += (char)code;
    } else {
        int tail = code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
        s += (char)((0xFF80 >> tail & 0xFF) | code >> 6 * tail);
        while (tail-- > 0) s += (char)(0x80 | (code >> 6 * tail & 63));
    }
    return s;
}

// All 2^24 texts of three bytes: valid are those, and only those, that are made of encoded characters.
TEST(utf8_every_text_of_three_bytes) {
    std::vector<std::string> of[4];  // characters by their length
    for (unsigned code = 0; code < 0x10000; code++) {
        if (code >= 0xD800 && code < 0xE000) continue;
        std::string s = encode(code);
        of[s.size()].push_back(s);
    }
    std::vector<bool> valid(1 << 24);
    auto mark = [&](const std::string& s) {
        valid[(size_t)(unsigned char)s[0] << 16 | (size_t)(unsigned char)s[1] << 8 | (unsigned char)s[2]] = true;
    };
    for (const auto& a : of[1]) {
        for (const auto& b : of[1]) {
            for (const auto& c : of[1]) mark(a + b + c);
        }
        for (const auto& b : of[2]) mark(a + b), mark(b + a);
    }
    for (const auto& a : of[3]) mark(a);
    for (unsigned x = 0; x < 1 << 24; x++) {
        const char text[3] = {(char)(x >> 16), (char)(x >> 8), (char)x};
        if ((utf8_invalid_at(text, 3) == std::string::npos) != valid[x])
            throw TestFailure(format("%02X %02X %02X is judged wrongly", x >> 16, x >> 8 & 255, x & 255));
    }
}

TEST(utf8_four_bytes_and_offsets) {
    for (unsigned code = 0x10000; code < 0x110000; code += 3) {
        std::string s = encode(code);
        CHECK_EQ(s.size(), 4u);
        CHECK_EQ(utf8_invalid_at(s.data(), 4), std::string::npos);
        CHECK_EQ(utf8_invalid_at(s.data(), 3), 0u);
    }
    for (const char* bad : {"\xF4\x90\x80\x80", "\xF0\x8F\xBF\xBF", "\xF5\x80\x80\x80", "\xF0\x9F\x98!",
                            "\xF0\x9F!\x80", "\xC0\x80", "\x80", "\xED\xA0\x80", "\xFE"}) {
        for (size_t before = 0; before < 20; before++) {
            for (size_t after = 0; after < 10; after++) {
                std::string s = std::string(before, 'a') + bad + std::string(after, 'a');
                std::vector<char> exact(s.begin(), s.end());
                CHECK_EQ(utf8_invalid_at(exact.data(), exact.size()), before);
            }
        }
    }
    CHECK_EQ(utf8_invalid_at("", 0), std::string::npos);
}
