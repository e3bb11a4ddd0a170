// bpe.h: byte-level byte-pair encoding, with the ids that Hugging Face `tokenizers` gives for Qwen3, and for Qwen2,
// Qwen2.5 and Llama 3, whose files have the same building blocks. What else a file asks for is refused by name.
//
// Text becomes ids in five steps:
//   1. added tokens (<|im_start|> and the like) are cut out: the leftmost first, of several there the longest;
//   2. what is between them is normalized to NFC, if the file says so;
//   3. a regular expression cuts it into pieces, roughly words with the space in front of them:
//        (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
//      (Llama 3 has \p{N}{1,3}); piece_end below is this expression, written out;
//   4. each byte of a piece is a token to begin with;
//   5. of all neighbours that can be merged, those with the lowest rank (line of merges.txt) are, the leftmost of
//      equals first, until there are none.
//
// The tokenizer is read from tokenizer.json if that is there (complete: it states normalizer and expression), else from
// vocab.json, merges.txt and tokenizer_config.json of a Qwen tokenizer. Both spell tokens in GPT-2's alphabet, a
// printable character for each byte. tokenizer_config.json may list further added tokens in either case.
// Encoding adds no tokens of its own: post-processor (BOS), truncation and padding of tokenizer.json are not applied.
//
// defines: Tokenizer, AddedToken, tokenizer_load, tokenizer_encode, tokenizer_decode, tokenizer_id, tokenizer_size
#pragma once
#include <algorithm>
#include <charconv>
#include <climits>
#include <cstdint>
#include <cstring>
#include <functional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>
#include "../data/error.h"
#include "../data/file.h"
#include "../data/json.h"
#include "unicode.h"

struct AddedToken {
    std::string text;
    int id;
};

// Which two ids merge, and how early: an open-addressing hash table from the pair to its rank.
struct MergeTable {
    struct Slot {
        uint64_t pair = UINT64_MAX;  // left id << 32 | right id
        int rank = -1;
    };
    std::vector<Slot> slots;  // a power of two, at most half of them used
    int shift = 63;
};

struct Tokenizer {
    std::string source;                               // the file or folder it was read from, for messages
    std::vector<std::string> bytes;                   // [V] what an id stands for
    std::unordered_map<std::string, int> vocabulary;  // bytes -> id, without the added tokens
    std::vector<AddedToken> added;                    // longest first
    bool added_starts[256] = {};                      // an added token starts with this byte
    int byte_id[256] = {};                            // the token of a single byte
    MergeTable merges;
    std::vector<int> merged;     // [merges] by rank: the id that the pair becomes
    bool nfc = true;             // normalize
    int max_digits = 1;          // \p{N} or \p{N}{1,3}
    bool ignore_merges = false;  // a piece that is a token as a whole is taken as it is
};

inline constexpr const char* qwen_pattern =
    R"re((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|)re"
    R"re( ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)re";
inline constexpr const char* llama3_pattern =
    R"re((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|)re"
    R"re( ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)re";

// ---------------------------------------------------------------------------------------------------------------------
// Pieces: the regular expression

// End of the longest run of code points from p on of which `flags & mask` is nonzero (or zero, with inside = false).
inline const char* run_end(const UnicodeData& unicode, const char* p, const char* end, uint8_t mask, bool inside,
                           size_t at_most = SIZE_MAX) {
    int length;
    for (size_t n = 0; p < end && n < at_most; n++, p += length) {
        if (((unicode.flags[utf8_char(p, &length)] & mask) != 0) != inside) break;
    }
    return p;
}

// End of (?i:'s|'t|'re|'ve|'m|'ll|'d) at p, or null.
inline const char* contraction_end(const char* p, const char* end) {
    if (*p != '\'' || p + 1 == end) return nullptr;
    int length;
    uint32_t first = unicode_fold(utf8_char(p + 1, &length));
    const char* next = p + 1 + length;
    if (first == 's' || first == 't' || first == 'm' || first == 'd') return next;
    if (next == end) return nullptr;
    uint32_t second = unicode_fold((unsigned char)*next);  // 'e' and 'l' match ASCII only
    bool both = ((first == 'r' || first == 'v') && second == 'e') || (first == 'l' && second == 'l');
    return both ? next + 1 : nullptr;
}

// End of the piece that starts at p < end. The alternatives are tried in the expression's order.
inline const char* piece_end(const UnicodeData& unicode, const char* p, const char* end, int max_digits) {
    constexpr uint8_t L = UNICODE_LETTER, N = UNICODE_NUMBER, S = UNICODE_SPACE;
    if (const char* stop = contraction_end(p, end)) return stop;

    // [^\r\n\p{L}\p{N}]?\p{L}+
    int length;
    const uint8_t flags = unicode.flags[utf8_char(p, &length)];
    const char* start = (flags & (L | N)) || *p == '\r' || *p == '\n' ? p : p + length;
    const char* stop = run_end(unicode, start, end, L, true);
    if (stop > start) return stop;

    // \p{N}{1,max_digits}
    if (flags & N) return run_end(unicode, p, end, N, true, max_digits);

    //  ?[^\s\p{L}\p{N}]+[\r\n]*
    start = *p == ' ' ? p + 1 : p;
    stop = run_end(unicode, start, end, S | L | N, false);
    if (stop > start) {
        while (stop < end && (*stop == '\r' || *stop == '\n')) stop++;
        return stop;
    }

    // White space: \s*[\r\n]+ reaches up to the last line end of the run; \s+(?!\S) leaves the run's last character to
    // the word behind it, if there is one; \s+ takes what is left.
    const char *last = p, *line_end = nullptr;
    for (stop = p; stop < end && (unicode.flags[utf8_char(stop, &length)] & S); stop += length) {
        last = stop;
        if (*stop == '\r' || *stop == '\n') line_end = stop + 1;
    }
    if (line_end) return line_end;
    return stop == end || last == p ? stop : last;
}

// ---------------------------------------------------------------------------------------------------------------------
// Merging

inline size_t merge_slot(const MergeTable& table, uint64_t pair) {
    size_t slot = pair * 0x9E3779B97F4A7C15u >> table.shift, mask = table.slots.size() - 1;
    while (table.slots[slot].pair != pair && table.slots[slot].rank >= 0) slot = (slot + 1) & mask;
    return slot;
}

inline uint64_t merge_pair(int left, int right) { return (uint64_t)(uint32_t)left << 32 | (uint32_t)right; }

// Rank of the merge of two ids, or -1.
inline int merge_rank(const MergeTable& table, int left, int right) {
    return table.slots[merge_slot(table, merge_pair(left, right))].rank;
}

// A piece as a linked list of tokens, indexed by their first byte, and a heap of the merges that may be done.
struct MergeWork {
    struct Symbol {
        int id, previous, next;  // next: the piece's size at its end; previous: -1 at its start
        int rank;                // of the merge with the next one, or -1
    };
    std::vector<Symbol> symbols;
    std::vector<uint64_t> heap;  // rank << 32 | position: the smallest is the next to do. Outdated ones stay in.
};

// Appends the ids of the piece p [n].
inline void encode_piece(const Tokenizer& t, const char* p, size_t n, MergeWork& work, std::vector<int>& ids) {
    if (t.ignore_merges) {
        auto whole = t.vocabulary.find(std::string(p, n));
        if (whole != t.vocabulary.end()) {
            ids.push_back(whole->second);
            return;
        }
    }
    auto& symbols = work.symbols;
    auto& heap = work.heap;
    const int size = (int)n;
    symbols.resize(n);
    heap.clear();
    for (int i = 0; i < size; i++) symbols[i] = {t.byte_id[(unsigned char)p[i]], i - 1, i + 1, -1};

    // Looks up the merge of the symbol at i with its neighbour.
    auto offer = [&](int i) {
        MergeWork::Symbol& symbol = symbols[i];
        symbol.rank = symbol.next < size ? merge_rank(t.merges, symbol.id, symbols[symbol.next].id) : -1;
        if (symbol.rank < 0) return false;
        heap.push_back((uint64_t)symbol.rank << 32 | (uint32_t)i);
        return true;
    };
    for (int i = 0; i < size; i++) offer(i);
    std::make_heap(heap.begin(), heap.end(), std::greater<>());
    while (!heap.empty()) {
        const int rank = (int)(heap.front() >> 32), i = (int)(uint32_t)heap.front();
        std::pop_heap(heap.begin(), heap.end(), std::greater<>());
        heap.pop_back();
        if (symbols[i].rank != rank) continue;
        MergeWork::Symbol& right = symbols[symbols[i].next];
        symbols[i].id = t.merged[rank];
        symbols[i].next = right.next;
        right.rank = -1;
        if (right.next < size) symbols[right.next].previous = i;
        if (offer(i)) std::push_heap(heap.begin(), heap.end(), std::greater<>());
        if (symbols[i].previous >= 0 && offer(symbols[i].previous))
            std::push_heap(heap.begin(), heap.end(), std::greater<>());
    }
    for (int i = 0; i < size; i = symbols[i].next) ids.push_back(symbols[i].id);
}

// ---------------------------------------------------------------------------------------------------------------------
// Text to ids and back

// Length of the longest added token at p, or 0; *id becomes its id.
inline size_t added_token_at(const Tokenizer& t, const char* p, const char* end, int* id) {
    for (const AddedToken& token : t.added) {
        const size_t n = token.text.size();
        if (n > (size_t)(end - p) || memcmp(p, token.text.data(), n) != 0) continue;
        *id = token.id;
        return n;
    }
    return 0;
}

// Steps 2 to 5 for text [n] without added tokens.
inline void encode_text(const Tokenizer& t, const char* text, size_t n, MergeWork& work, std::vector<int>& ids) {
    const UnicodeData& unicode = unicode_data();
    std::string normalized;
    if (t.nfc && run_end(unicode, text, text + n, UNICODE_UNSTABLE, false) < text + n) {
        normalized = unicode_nfc(text, n);
        text = normalized.data();
        n = normalized.size();
    }
    for (const char *p = text, *end = text + n; p < end;) {
        const char* stop = piece_end(unicode, p, end, t.max_digits);
        encode_piece(t, p, (size_t)(stop - p), work, ids);
        p = stop;
    }
}

// The ids of text [n] in UTF-8, at most 512 MiB: NFC may triple it, and positions in it are int.
inline std::vector<int> tokenizer_encode(const Tokenizer& t, const char* text, size_t n) {
    size_t bad = utf8_invalid_at(text, n);
    if (bad != std::string::npos)
        fail("the text to tokenize isn't UTF-8: byte 0x%02X at offset %zu. HINT: convert it to UTF-8 first",
             (unsigned char)text[bad], bad);
    if (n > 512u << 20)
        fail("the text to tokenize has %zu bytes, more than 512 MiB. HINT: tokenize it document by document", n);
    std::vector<int> ids;
    MergeWork work;
    const char *end = text + n, *start = text;
    for (const char* p = text; p < end;) {
        int id;
        size_t length = t.added_starts[(unsigned char)*p] ? added_token_at(t, p, end, &id) : 0;
        if (length == 0) {
            p++;
            continue;
        }
        encode_text(t, start, (size_t)(p - start), work, ids);
        ids.push_back(id);
        start = p += length;
    }
    encode_text(t, start, (size_t)(end - start), work, ids);
    return ids;
}

inline std::vector<int> tokenizer_encode(const Tokenizer& t, const std::string& text) {
    return tokenizer_encode(t, text.data(), text.size());
}

// V: ids are 0 .. V-1.
inline size_t tokenizer_size(const Tokenizer& t) { return t.bytes.size(); }

// The bytes of the tokens, added tokens as their text. A token may end within a UTF-8 character.
inline std::string tokenizer_decode(const Tokenizer& t, const std::vector<int>& ids) {
    std::string text;
    for (size_t i = 0; i < ids.size(); i++) {
        if (ids[i] < 0 || (size_t)ids[i] >= t.bytes.size())
            fail("%s: id %d, number %zu of %zu to decode, is outside of 0..%zu. HINT: the ids are of another tokenizer",
                 t.source.c_str(), ids[i], i, ids.size(), t.bytes.size() - 1);
        text += t.bytes[ids[i]];
    }
    return text;
}

// The id of an added token, or else of the token with these bytes (" the", not "Ġthe"); -1 if there is none.
inline int tokenizer_id(const Tokenizer& t, const std::string& token_text) {
    for (const AddedToken& token : t.added) {
        if (token.text == token_text) return token.id;
    }
    auto found = t.vocabulary.find(token_text);
    return found == t.vocabulary.end() ? -1 : found->second;
}

// ---------------------------------------------------------------------------------------------------------------------
// Loading

// Turns GPT-2's alphabet into the bytes that it stands for. False if a character isn't of that alphabet: printable
// Latin-1 characters stand for themselves, and U+0100.. for the other bytes in turn.
inline bool gpt2_bytes(const std::string& spelled, std::string& bytes) {
    static const std::vector<int> byte_of = [] {
        std::vector<int> table(256, -1);
        for (int b = 0; b < 256; b++) {
            bool printable = (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
            if (printable) {
                table[b] = b;
            } else {
                table.push_back(b);
            }
        }
        return table;
    }();
    bytes.clear();
    int length;
    for (const char *p = spelled.data(), *end = p + spelled.size(); p < end; p += length) {
        uint32_t code = utf8_char(p, &length);
        if (code >= byte_of.size() || byte_of[code] < 0) return false;
        bytes += (char)byte_of[code];
    }
    return !bytes.empty();
}

inline constexpr const char* damaged_hint = "HINT: the file is damaged or of another model; get it again";
inline constexpr const char* supported_hint = "HINT: the tokenizers of Qwen2, Qwen3 and Llama 3 are supported";

// A token as messages show it.
inline std::string shown(const std::string& token) { return json_quote(std::string_view(token).substr(0, 80)); }

// Adds one added token; `flags` is its object in tokenizer.json or tokenizer_config.json. The same one twice is fine.
inline void add_token(Tokenizer& t, long long id, const Json& flags, const std::string& what) {
    const std::string& text = json_string(flags, "content", what);
    if (text.empty()) fail("%s: added token %lld is the empty string. %s", what.c_str(), id, damaged_hint);
    if (id < 0 || id >= INT_MAX)
        fail("%s: added token %s has the id %lld. %s", what.c_str(), shown(text).c_str(), id, damaged_hint);
    for (const char* flag : {"lstrip", "rstrip", "single_word", "normalized"}) {
        if (!json_bool(flags, flag, what)) continue;
        fail("%s: added token %s has %s = true, which isn't supported. %s", what.c_str(), shown(text).c_str(), flag,
             supported_hint);
    }
    for (const AddedToken& token : t.added) {
        if (token.text == text && token.id == id) return;
        if (token.text == text || token.id == id)
            fail("%s: added token %s has the id %lld, but %s has %d. %s", what.c_str(), shown(text).c_str(), id,
                 shown(token.text).c_str(), token.id, damaged_hint);
    }
    t.added.push_back({text, (int)id});
    t.added_starts[(unsigned char)text[0]] = true;
}

// tokenizer_config.json's list, an object from id to token.
inline void add_config_tokens(Tokenizer& t, const Json& config, const std::string& path) {
    if (json_absent(config, "added_tokens_decoder")) return;
    for (const auto& entry : json_object(config, "added_tokens_decoder", path).object) {
        long long id = -1;
        auto parsed = std::from_chars(entry.first.data(), entry.first.data() + entry.first.size(), id);
        if (parsed.ec != std::errc() || parsed.ptr != entry.first.data() + entry.first.size())
            fail("%s: \"added_tokens_decoder\": %s isn't an id. %s", path.c_str(), shown(entry.first).c_str(),
                 damaged_hint);
        add_token(t, id, entry.second, path);
    }
}

// The vocabulary {token: id} of model `vocab`, after the added tokens. Together their ids must be 0 .. V-1, each once.
inline void add_vocabulary(Tokenizer& t, const Json& vocab, const std::string& path) {
    if (vocab.type != Json::OBJECT)
        fail("%s: expected an object from token to id, found %s. %s", path.c_str(), json_describe(vocab).c_str(),
             damaged_hint);
    std::unordered_map<std::string_view, int> added;
    for (const AddedToken& token : t.added) added[token.text] = token.id;
    size_t size = vocab.object.size() + t.added.size();
    for (const auto& entry : vocab.object) size -= added.count(entry.first);
    t.bytes.resize(size);
    t.vocabulary.reserve(size);

    std::string bytes;
    for (const auto& [spelled, id] : vocab.object) {
        auto is_added = added.find(spelled);
        bool in_alphabet = gpt2_bytes(spelled, bytes);
        if (!in_alphabet && is_added == added.end())
            fail("%s: token %s isn't written in the byte-level alphabet, and isn't an added token. %s", path.c_str(),
                 shown(spelled).c_str(), damaged_hint);
        if (!id.is_integer || id.integer < 0 || (size_t)id.integer >= size)
            fail("%s: the id of token %s should be an integer from 0 to %zu, as there are %zu tokens; found %s. %s",
                 path.c_str(), shown(spelled).c_str(), size - 1, size, json_describe(id).c_str(), damaged_hint);
        if (is_added != added.end() && is_added->second != id.integer)
            fail("%s: token %s has the id %lld, but as an added token it has %d. %s", path.c_str(),
                 shown(spelled).c_str(), id.integer, is_added->second, damaged_hint);
        std::string& slot = t.bytes[(size_t)id.integer];
        if (!slot.empty())
            fail("%s: the id %lld is given twice, to %s too. %s", path.c_str(), id.integer, shown(spelled).c_str(),
                 damaged_hint);
        slot = in_alphabet ? bytes : spelled;
        if (in_alphabet) t.vocabulary.emplace(bytes, (int)id.integer);
    }
    for (const AddedToken& token : t.added) {
        if ((size_t)token.id >= size)
            fail("%s: added token %s has the id %d: expected at most %zu, as there are %zu tokens. %s",
                 t.source.c_str(), shown(token.text).c_str(), token.id, size - 1, size, damaged_hint);
        std::string& slot = t.bytes[token.id];
        if (!slot.empty() && !vocab.find(token.text))
            fail("%s: added token %s has the id %d, which is given to another token. %s", t.source.c_str(),
                 shown(token.text).c_str(), token.id, damaged_hint);
        slot = token.text;
    }
    for (int b = 0; b < 256; b++) {
        auto found = t.vocabulary.find(std::string(1, (char)b));
        if (found == t.vocabulary.end())
            fail("%s: there is no token for the single byte 0x%02X. %s", path.c_str(), b, damaged_hint);
        t.byte_id[b] = found->second;
    }
    std::sort(t.added.begin(), t.added.end(), [](const AddedToken& a, const AddedToken& b) {
        return a.text.size() != b.text.size() ? a.text.size() > b.text.size() : a.text < b.text;
    });
}

// Room for n merges.
inline void reserve_merges(Tokenizer& t, size_t n) {
    size_t slots = 2;
    for (t.merges.shift = 63; slots < 2 * n; slots *= 2) t.merges.shift--;
    t.merges.slots.resize(slots);
    t.merged.reserve(n);
}

// The next merge, of two tokens in GPT-2's alphabet. `where`: the file and line or index, for messages.
inline void add_merge(Tokenizer& t, const std::string& left, const std::string& right, const std::string& where) {
    std::string a, b;
    for (auto [spelled, bytes] : {std::pair(&left, &a), std::pair(&right, &b)}) {
        if (!gpt2_bytes(*spelled, *bytes) || !t.vocabulary.count(*bytes))
            fail("%s: the merge of %s and %s: %s isn't in the vocabulary. %s", where.c_str(), shown(left).c_str(),
                 shown(right).c_str(), shown(*spelled).c_str(), damaged_hint);
    }
    auto merged = t.vocabulary.find(a + b);
    if (merged == t.vocabulary.end())
        fail("%s: the merge of %s and %s makes %s, which isn't in the vocabulary. %s", where.c_str(),
             shown(left).c_str(), shown(right).c_str(), shown(left + right).c_str(), damaged_hint);
    const uint64_t pair = merge_pair(t.vocabulary.at(a), t.vocabulary.at(b));
    MergeTable::Slot& slot = t.merges.slots[merge_slot(t.merges, pair)];
    if (slot.rank >= 0)
        fail("%s: the merge of %s and %s is there twice. %s", where.c_str(), shown(left).c_str(), shown(right).c_str(),
             damaged_hint);
    slot = {pair, (int)t.merged.size()};
    t.merged.push_back(merged->second);
}

// merges.txt: a merge a line, two tokens with a space between them; lines that start with #version don't count.
inline void add_merges_file(Tokenizer& t, const std::string& path) {
    MappedFile file(path);
    size_t bad = utf8_invalid_at(file.data, file.size);
    if (bad != std::string::npos)
        fail("%s: expected UTF-8, found byte 0x%02X at offset %zu. %s", path.c_str(), (unsigned char)file.data[bad],
             bad, damaged_hint);
    const char* end = file.data + file.size;
    reserve_merges(t, (size_t)std::count(file.data, end, '\n') + 1);
    size_t number = 0;
    for (const char* line = file.data; line < end;) {
        const char* stop = std::find(line, end, '\n');
        std::string text(line, stop);
        line = stop + 1;
        number++;
        if (!text.empty() && text.back() == '\r') text.pop_back();
        if (text.compare(0, 8, "#version") == 0) continue;
        size_t space = text.find(' ');
        if (space == std::string::npos || text.find(' ', space + 1) != std::string::npos)
            fail("%s:%zu: expected two tokens with a space between them, found %s. %s", path.c_str(), number,
                 shown(text).c_str(), damaged_hint);
        add_merge(t, text.substr(0, space), text.substr(space + 1), path + ":" + std::to_string(number));
    }
}

// The merges of tokenizer.json: "a b", or ["a", "b"] in newer files.
inline void add_merges_json(Tokenizer& t, const std::vector<Json>& merges, const std::string& path) {
    reserve_merges(t, merges.size());
    for (size_t i = 0; i < merges.size(); i++) {
        const Json& merge = merges[i];
        const std::string where = path + ": merge " + std::to_string(i);
        size_t space = merge.string.find(' ');
        if (merge.type == Json::STRING && space != std::string::npos)
            add_merge(t, merge.string.substr(0, space), merge.string.substr(space + 1), where);
        else if (merge.type == Json::ARRAY && merge.array.size() == 2)
            add_merge(t, merge.array[0].string, merge.array[1].string, where);
        else
            fail("%s: expected two tokens, found %s. %s", where.c_str(), json_describe(merge).c_str(), damaged_hint);
    }
}

// Fails unless the setting `what` is as expected.
inline void expect_setting(const std::string& path, const char* what, const std::string& found,
                           const std::string& expected) {
    if (found == expected) return;
    fail("%s: %s is %s, expected %s. %s", path.c_str(), what, json_quote(found).c_str(), json_quote(expected).c_str(),
         supported_hint);
}
inline void expect_setting(const std::string& path, const char* what, bool found, bool expected) {
    expect_setting(path, what, std::string(found ? "true" : "false"), expected ? "true" : "false");
}

// What happens before the merges, read from tokenizer.json.
inline void read_settings(Tokenizer& t, const Json& root, const std::string& path) {
    const Json& model = json_object(root, "model", path);
    expect_setting(path, "the model's type", json_string(model, "type", path, "BPE"), "BPE");
    expect_setting(path, "the model's continuing_subword_prefix",
                   json_string(model, "continuing_subword_prefix", path, ""), "");
    expect_setting(path, "the model's end_of_word_suffix", json_string(model, "end_of_word_suffix", path, ""), "");
    expect_setting(path, "the model's byte_fallback", json_bool(model, "byte_fallback", path, false), false);
    double dropout = json_number(model, "dropout", path, 0);
    if (dropout != 0) fail("%s: the model's dropout is %g, expected none. %s", path.c_str(), dropout, supported_hint);
    t.ignore_merges = json_bool(model, "ignore_merges", path, false);

    t.nfc = !json_absent(root, "normalizer");
    if (t.nfc)
        expect_setting(path, "the normalizer", json_string(json_object(root, "normalizer", path), "type", path), "NFC");

    const Json& both = json_object(root, "pre_tokenizer", path);
    expect_setting(path, "the pre-tokenizer", json_string(both, "type", path), "Sequence");
    const std::vector<Json>& steps = json_array(both, "pretokenizers", path);
    if (steps.size() != 2)
        fail("%s: the pre-tokenizer has %zu steps, expected Split and ByteLevel. %s", path.c_str(), steps.size(),
             supported_hint);
    const Json &split = steps[0], &byte_level = steps[1];
    expect_setting(path, "the pre-tokenizer's first step", json_string(split, "type", path), "Split");
    expect_setting(path, "the pre-tokenizer's behavior", json_string(split, "behavior", path), "Isolated");
    expect_setting(path, "the pre-tokenizer's invert", json_bool(split, "invert", path), false);
    expect_setting(path, "the pre-tokenizer's second step", json_string(byte_level, "type", path), "ByteLevel");
    expect_setting(path, "ByteLevel's add_prefix_space", json_bool(byte_level, "add_prefix_space", path), false);
    expect_setting(path, "ByteLevel's use_regex", json_bool(byte_level, "use_regex", path), false);
    const std::string& pattern = json_string(json_object(split, "pattern", path), "Regex", path);
    t.max_digits = pattern == llama3_pattern ? 3 : 1;
    if (t.max_digits == 1) expect_setting(path, "the pre-tokenizer's regular expression", pattern, qwen_pattern);

    if (!json_absent(root, "decoder"))
        expect_setting(path, "the decoder", json_string(json_object(root, "decoder", path), "type", path), "ByteLevel");
}

// From tokenizer.json, or from vocab.json, merges.txt and tokenizer_config.json, in folder `dir` (see the top).
inline Tokenizer tokenizer_load(const std::string& dir) {
    const std::string json_path = dir + "/tokenizer.json", vocab_path = dir + "/vocab.json";
    const std::string merges_path = dir + "/merges.txt", config_path = dir + "/tokenizer_config.json";
    Tokenizer t;
    if (file_exists(json_path)) {
        t.source = json_path;
        const Json root = json_parse_file(json_path);
        read_settings(t, root, json_path);
        if (!json_absent(root, "added_tokens")) {
            for (const Json& token : json_array(root, "added_tokens", json_path))
                add_token(t, json_int(token, "id", json_path), token, json_path);
        }
        if (file_exists(config_path)) add_config_tokens(t, json_parse_file(config_path), config_path);
        const Json& model = json_get(root, "model", json_path);
        add_vocabulary(t, json_get(model, "vocab", json_path), json_path);
        add_merges_json(t, json_array(model, "merges", json_path), json_path);
        return t;
    }
    for (const std::string& path : {vocab_path, merges_path, config_path}) {
        if (!file_exists(path))
            fail("%s is missing: a tokenizer is a tokenizer.json, or vocab.json with merges.txt and "
                 "tokenizer_config.json. HINT: scripts/download.sh qwen3-tokenizer gets Qwen3's, a model has its own",
                 path.c_str());
    }
    t.source = vocab_path;
    const Json config = json_parse_file(config_path);
    const std::string kind = json_string(config, "tokenizer_class", config_path, "Qwen2Tokenizer");
    if (kind != "Qwen2TokenizerFast") expect_setting(config_path, "tokenizer_class", kind, "Qwen2Tokenizer");
    expect_setting(config_path, "add_prefix_space", json_bool(config, "add_prefix_space", config_path, false), false);
    add_config_tokens(t, config, config_path);
    add_vocabulary(t, json_parse_file(vocab_path), vocab_path);
    add_merges_file(t, merges_path);
    return t;
}
