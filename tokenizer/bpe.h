// bpe.h: byte-level byte-pair encoding, with the ids that Hugging Face `tokenizers` gives for Qwen3, and for Qwen2,
// Qwen2.5, Llama 3, SmolLM and GPT-2, whose files have the same building blocks. What else a file asks for is refused by name.
//
// Text becomes ids in five steps:
//   1. added tokens (<|im_start|> and the like) are cut out (added_tokens.h);
//   2. what is between them is normalized to NFC, if the file says so;
//   3. a regular expression cuts it into pieces, roughly words with the space in front of them (pieces.h);
//   4. each byte of a piece is a token to begin with; a byte that has none is dropped, or becomes the unknown token if there is one;
//   5. of all neighbours that can be merged, those with the lowest rank (line of merges.txt) are, the leftmost of
//      equals first, until there are none.
//
// The tokenizer is read from tokenizer.json if that is there (complete: it states normalizer and expression), else from
// vocab.json, merges.txt and tokenizer_config.json of a Qwen tokenizer. Both spell tokens in GPT-2's alphabet, a
// printable character for each byte. tokenizer_config.json may name further added tokens in either case, and where it lists none in
// added_tokens_decoder, transformers reads special_tokens_map.json and added_tokens.json too.
// Encoding adds no tokens of its own: post-processor (BOS), truncation and padding of tokenizer.json are not applied.
//
// defines: Tokenizer, tokenizer_load, utf8_text, tokenizer_encode, tokenizer_decode, tokenizer_id, tokenizer_size
#pragma once
#include <algorithm>
#include <charconv>
#include <climits>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>
#include "../data/error.h"
#include "../data/file.h"
#include "../data/json.h"
// defines: AddedToken, AddedTokens, added_tokens_insert, added_token_at
#include "added_tokens.h"
// defines: Splitting, qwen_pattern, llama3_pattern, run_end, stretch_end, piece_end
#include "pieces.h"
// defines: damaged_hint, supported_hint, shown, expect_setting, refuse_sentencepiece, read_splitting, refuse_settings,
//          token_lists, is_token_list, is_token_key, token_lists_of, take_qwen_class
#include "settings.h"
#include "unicode.h"

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
    AddedTokens added;
    int byte_id[256] = {};   // the token of a single byte, or -1
    int unknown_id = -1;     // the token of a byte that has none, or -1
    bool fuse_unknown = false;  // one for several in a row
    MergeTable merges;
    std::vector<int> merged;     // [merges] by rank: the id that the pair becomes
    bool nfc = true;             // normalize
    Splitting splitting;
    bool ignore_merges = false;  // a piece that is a token as a whole is taken as it is
};

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

// A piece as a linked list of tokens, indexed by the bytes that they begin with, and a heap of the merges that may be done.
struct MergeWork {
    struct Symbol {
        int id, previous, next;  // next: the number of symbols at the piece's end; previous: -1 at its start
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
    symbols.clear();
    heap.clear();
    bool unknown = false;  // the byte before has no token
    for (size_t i = 0; i < n; i++) {
        const int id = t.byte_id[(unsigned char)p[i]], at = (int)symbols.size();
        if (id >= 0) symbols.push_back({id, at - 1, at + 1, -1});
        else if (t.unknown_id >= 0 && !(unknown && t.fuse_unknown)) symbols.push_back({t.unknown_id, at - 1, at + 1, -1});
        unknown = id < 0;
    }
    const int size = (int)symbols.size();

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
        for (const char* stretch = stretch_end(unicode, p, end, t.splitting); p < stretch;) {
            const char* stop = piece_end(unicode, p, stretch, t.splitting);
            encode_piece(t, p, (size_t)(stop - p), work, ids);
            p = stop;
        }
    }
}

// The text of a file, which must be UTF-8.
inline std::string_view utf8_text(const MappedFile& file) {
    const std::string_view text = file_text(file);
    const size_t bad = utf8_invalid_at(text.data(), text.size());
    if (bad != std::string::npos)
        fail("%s: byte 0x%02X at offset %zu isn't UTF-8. HINT: convert the file to UTF-8 first", file.path.c_str(), (unsigned char)text[bad],
             bad + (file.size - text.size()));
    return text;
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
        size_t length = added_token_at(t.added, p, end, &id);
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
    auto added = t.added.by_text.find(token_text);
    if (added != t.added.by_text.end()) return t.added.tokens[added->second].id;
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

// Adds one added token; `flags` is its object in tokenizer.json or tokenizer_config.json. The same one twice is fine.
inline void add_token(Tokenizer& t, long long id, const Json& flags, const std::string& what) {
    const std::string& text = json_string(flags, "content", what);
    if (text.empty()) fail("%s: added token %lld is the empty string. %s", what.c_str(), id, damaged_hint);
    if (text.size() > longest_added_token)
        fail("%s: added token %s has %zu bytes, expected at most %zu. %s", what.c_str(), shown(text).c_str(), text.size(),
             longest_added_token, damaged_hint);
    if (id < 0 || id >= INT_MAX)
        fail("%s: added token %s has the id %lld. %s", what.c_str(), shown(text).c_str(), id, damaged_hint);
    for (const char* flag : {"lstrip", "rstrip", "single_word", "normalized"}) {
        if (!json_bool(flags, flag, what)) continue;
        fail("%s: added token %s has %s = true, which isn't supported. %s", what.c_str(), shown(text).c_str(), flag,
             supported_hint);
    }
    const auto same_text = t.added.by_text.find(text);
    const auto same_id = t.added.by_id.find((int)id);
    if (same_text != t.added.by_text.end() || same_id != t.added.by_id.end()) {
        const AddedToken& token = t.added.tokens[same_text != t.added.by_text.end() ? same_text->second : same_id->second];
        if (token.text == text && token.id == id) return;
        fail("%s: added token %s has the id %lld, but %s has %d. %s", what.c_str(), shown(text).c_str(), id,
             shown(token.text).c_str(), token.id, damaged_hint);
    }
    added_tokens_insert(t.added, text, (int)id);
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

// One of the special tokens that settings name: its text, or its object. Where no added token is spelled so, transformers makes one:
// of the vocabulary's token of that spelling, else with the next free id.
inline void add_named_token(Tokenizer& t, const Json& token, const Json& vocab, const std::string& key, const std::string& what) {
    if (token.type != Json::STRING && token.type != Json::OBJECT) json_wrong_type(what, key.c_str(), "a token", token);
    const std::string& text = token.type == Json::STRING ? token.string : json_string(token, "content", what);
    if (text.empty() || t.added.by_text.count(text)) return;
    long long id = (long long)vocab.object.size();
    for (const AddedToken& other : t.added.tokens) id = std::max(id, (long long)other.id + 1);
    if (const Json* known = vocab.find(text)) id = known->integer;
    Json flags;
    flags.type = Json::OBJECT;
    if (token.type == Json::OBJECT) flags.object = token.object;
    else json_set_string(flags, "content", text);
    for (const char* flag : {"lstrip", "rstrip", "single_word", "normalized"}) {
        if (flags.find(flag)) continue;
        flags.object.emplace_back(flag, Json());
        flags.object.back().second.type = Json::BOOL;
    }
    add_token(t, id, flags, what + ": \"" + key + "\"");
}

// All tokens that settings name: bos_token and its like, in transformers' order, any other key of that form, and the lists. Of `several`
// lists none may have a token that stands nowhere else.
inline void add_named_tokens(Tokenizer& t, const Json& settings, const Json& vocab, const std::string& what, bool several) {
    for (const char* key : {"bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"})
        if (!json_absent(settings, key)) add_named_token(t, *settings.find(key), vocab, key, what);
    for (const auto& [key, value] : settings.object) {
        if (is_token_key(key) && (value.type == Json::STRING || value.type == Json::OBJECT))
            add_named_token(t, value, vocab, key, what);
    }
    for (const char* key : token_lists) {
        for (const auto& [name, list] : settings.object) {  // more than once, where two files have such a list
            if (name != key || list.type == Json::NUL) continue;
            if (list.type != Json::ARRAY && list.type != Json::OBJECT) json_wrong_type(what, key, "a list of tokens", list);
            if (list.array.size() + list.object.size() > 4096)
                fail("%s: \"%s\" has %zu tokens, expected at most 4096. %s", what.c_str(), key,
                     list.array.size() + list.object.size(), damaged_hint);
            const size_t known = t.added.tokens.size();
            for (const auto& member : list.object) add_named_token(t, member.second, vocab, key, what);
            for (const Json& token : list.array) add_named_token(t, token, vocab, key, what);
            if (several && t.added.tokens.size() > known)
                fail("%s: \"%s\" has token %s, which stands nowhere else, and there is another list of special tokens, which isn't "
                     "supported. %s",
                     what.c_str(), key, shown(t.added.tokens[known].text).c_str(), supported_hint);
        }
    }
}

// What the other files beside the vocabulary say: tokenizer_config.json, and where it has no added_tokens_decoder the two older ones.
inline void add_settings_files(Tokenizer& t, const std::string& dir, Json settings, const Json& vocab) {
    const std::string config_path = dir + "/tokenizer_config.json", map_path = dir + "/special_tokens_map.json",
                      added_path = dir + "/added_tokens.json";
    const bool listed = !json_absent(settings, "added_tokens_decoder");
    int lists = token_lists_of(settings);
    if (!listed && file_exists(map_path)) {
        const Json map = json_parse_file(map_path);
        if (map.type != Json::OBJECT) fail("%s: expected an object, found %s. %s", map_path.c_str(), json_describe(map).c_str(), damaged_hint);
        lists += token_lists_of(map);
        for (const auto& member : map.object) {
            auto replaced = [&](const auto& other) { return other.first == member.first && !is_token_list(member.first); };
            settings.object.erase(std::remove_if(settings.object.begin(), settings.object.end(), replaced), settings.object.end());
            settings.object.push_back(member);
        }
    }
    add_named_tokens(t, settings, vocab, config_path, lists > 1);
    if (listed || !file_exists(added_path)) return;
    for (const auto& [text, id] : json_parse_file(added_path).object) {
        const auto known = t.added.by_text.find(text);
        if (known == t.added.by_text.end() || !id.is_integer || t.added.tokens[known->second].id != id.integer)
            fail("%s: token %s with the id %s stands in no other file, or with another id, which isn't supported. %s", added_path.c_str(),
                 shown(text).c_str(), json_write(id).c_str(), supported_hint);
    }
}

// The vocabulary {token: id} of model `vocab`, after the added tokens. Together their ids must be 0 .. V-1, each once.
inline void add_vocabulary(Tokenizer& t, const Json& vocab, const std::string& path) {
    if (vocab.type != Json::OBJECT)
        fail("%s: expected an object from token to id, found %s. %s", path.c_str(), json_describe(vocab).c_str(),
             damaged_hint);
    std::unordered_map<std::string_view, int> added;
    for (const AddedToken& token : t.added.tokens) added[token.text] = token.id;
    size_t size = vocab.object.size() + t.added.tokens.size();
    for (const auto& entry : vocab.object) size -= added.count(entry.first);
    if (size > INT_MAX) fail("%s: %zu tokens are too many. %s", path.c_str(), size, damaged_hint);
    std::unordered_set<std::string_view> in_both;
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
        if (is_added != added.end()) in_both.insert(spelled);
        if (in_alphabet) t.vocabulary.emplace(bytes, (int)id.integer);
    }
    for (const AddedToken& token : t.added.tokens) {
        if ((size_t)token.id >= size)
            fail("%s: added token %s has the id %d: expected at most %zu, as there are %zu tokens. %s",
                 t.source.c_str(), shown(token.text).c_str(), token.id, size - 1, size, damaged_hint);
        std::string& slot = t.bytes[token.id];
        if (!slot.empty() && !in_both.count(token.text))
            fail("%s: added token %s has the id %d, which is given to another token. %s", t.source.c_str(),
                 shown(token.text).c_str(), token.id, damaged_hint);
        slot = token.text;
    }
    for (int b = 0; b < 256; b++) {
        auto found = t.vocabulary.find(std::string(1, (char)b));
        t.byte_id[b] = found == t.vocabulary.end() ? -1 : found->second;
    }
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
    const std::string_view all = file_text(file);
    size_t bad = utf8_invalid_at(all.data(), all.size());
    if (bad != std::string::npos)
        fail("%s: expected UTF-8, found byte 0x%02X at offset %zu. %s", path.c_str(), (unsigned char)all[bad], bad, damaged_hint);
    const char* end = all.data() + all.size();
    reserve_merges(t, (size_t)std::count(all.data(), end, '\n') + 1);
    size_t number = 0;
    for (const char* line = all.data(); line < end;) {
        const char* stop = std::find(line, end, '\n');
        std::string text(line, stop);
        line = stop + 1;
        number++;
        if (!text.empty() && text.back() == '\r') text.pop_back();
        if (is_blank(text) || text.compare(0, 8, "#version") == 0) continue;
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
        else if (merge.array.size() == 2 && merge.array[0].type == Json::STRING && merge.array[1].type == Json::STRING)
            add_merge(t, merge.array[0].string, merge.array[1].string, where);
        else
            fail("%s: expected two tokens, found %s. %s", where.c_str(), json_describe(merge).c_str(), damaged_hint);
    }
}

// What happens before the merges, read from tokenizer.json.
inline void read_settings(Tokenizer& t, const Json& root, const std::string& path) {
    const Json& model = json_object(root, "model", path);
    const std::string type = json_string(model, "type", path, "BPE");
    if (type == "Unigram") refuse_sentencepiece(path, "the model's type is \"Unigram\"");
    expect_setting(path, "the model's type", type, "BPE");
    expect_setting(path, "the model's continuing_subword_prefix",
                   json_string(model, "continuing_subword_prefix", path, ""), "");
    expect_setting(path, "the model's end_of_word_suffix", json_string(model, "end_of_word_suffix", path, ""), "");
    if (json_bool(model, "byte_fallback", path, false)) refuse_sentencepiece(path, "the model's byte_fallback is \"true\"");
    double dropout = json_number(model, "dropout", path, 0);
    if (dropout != 0) fail("%s: the model's dropout is %g, expected none. %s", path.c_str(), dropout, supported_hint);
    t.ignore_merges = json_bool(model, "ignore_merges", path, false);
    t.fuse_unknown = json_bool(model, "fuse_unk", path, false);

    t.nfc = !json_absent(root, "normalizer");
    if (t.nfc)
        expect_setting(path, "the normalizer", json_string(json_object(root, "normalizer", path), "type", path), "NFC");
    t.splitting = read_splitting(json_object(root, "pre_tokenizer", path), path);
    if (!json_absent(root, "decoder"))
        expect_setting(path, "the decoder", json_string(json_object(root, "decoder", path), "type", path), "ByteLevel");
}

// That class has rules of its own, by which transformers 5 goes whatever tokenizer.json says: a file that says something else is refused.
inline void require_qwen_rules(const Tokenizer& t, const Json& config, bool has_unknown, const std::string& path,
                               const std::string& config_path) {
    if (!t.nfc || t.splitting.gpt2 || t.splitting.max_digits != 1 || t.ignore_merges || has_unknown)
        fail("%s names the class Qwen2Tokenizer, which has rules of its own, and %s says others. HINT: are both of this model?",
             config_path.c_str(), path.c_str());
    if (json_absent(config, "added_tokens_decoder")) return;
    const Json& listed = json_object(config, "added_tokens_decoder", config_path);
    for (const AddedToken& token : t.added.tokens)
        if (!listed.find(std::to_string(token.id)))
            fail("%s: added token %s isn't in the added_tokens_decoder of %s. HINT: are both of this model?", path.c_str(),
                 shown(token.text).c_str(), config_path.c_str());
}

inline Tokenizer load_tokenizer_json(const std::string& dir, Json config) {
    Tokenizer t;
    t.source = dir + "/tokenizer.json";
    const std::string &path = t.source, config_path = dir + "/tokenizer_config.json";
    const Json root = json_parse_file(path, limit_vocabulary);
    const bool qwen = take_qwen_class(config, config_path);
    read_settings(t, root, path);
    if (!json_absent(root, "added_tokens")) {
        for (const Json& token : json_array(root, "added_tokens", path)) add_token(t, json_int(token, "id", path), token, path);
    }
    const Json& model = json_get(root, "model", path);
    if (qwen) require_qwen_rules(t, config, !json_absent(model, "unk_token"), path, config_path);
    add_config_tokens(t, config, config_path);
    const Json& vocab = json_get(model, "vocab", path);
    add_settings_files(t, dir, config, vocab);
    add_vocabulary(t, vocab, path);
    if (!json_absent(model, "unk_token")) {
        const std::string& unknown = json_string(model, "unk_token", path);
        const Json* id = vocab.find(unknown);
        if (!id) fail("%s: the model's unk_token %s isn't in the vocabulary. %s", path.c_str(), shown(unknown).c_str(), damaged_hint);
        t.unknown_id = (int)id->integer;
    }
    add_merges_json(t, json_array(model, "merges", path), path);
    return t;
}

// From vocab.json and merges.txt, which say nothing of normalizer and expression: those are Qwen's, if the class is.
inline Tokenizer load_tokenizer_pair(const std::string& dir, Json config) {
    const std::string vocab_path = dir + "/vocab.json", config_path = dir + "/tokenizer_config.json";
    Tokenizer t;
    t.source = vocab_path;
    if (json_absent(config, "tokenizer_class"))
        fail("%s: \"tokenizer_class\" is missing, and without a tokenizer.json nothing else says how text is split. HINT: get the "
             "model's tokenizer.json too",
             config_path.c_str());
    const std::string kind = json_string(config, "tokenizer_class", config_path);
    if (!take_qwen_class(config, config_path)) expect_setting(config_path, "tokenizer_class", kind, "Qwen2Tokenizer");
    add_config_tokens(t, config, config_path);
    const Json vocab = json_parse_file(vocab_path, limit_vocabulary);
    add_settings_files(t, dir, config, vocab);
    add_vocabulary(t, vocab, vocab_path);
    add_merges_file(t, dir + "/merges.txt");
    return t;
}

// From tokenizer.json, or from vocab.json, merges.txt and tokenizer_config.json, in folder `dir` (see the top).
inline Tokenizer tokenizer_load(const std::string& dir) {
    const std::string config_path = dir + "/tokenizer_config.json";
    const bool complete = file_exists(dir + "/tokenizer.json");
    if (!complete && !file_exists(dir + "/vocab.json") && file_exists(dir + "/tokenizer.model"))
        refuse_sentencepiece(dir, "expected a tokenizer.json, found tokenizer.model");
    for (const char* name : {"vocab.json", "merges.txt", "tokenizer_config.json"}) {
        if (!complete && !file_exists(dir + "/" + name))
            fail("%s/%s is missing: a tokenizer is a tokenizer.json, or vocab.json with merges.txt and "
                 "tokenizer_config.json. HINT: scripts/download.sh qwen3-tokenizer gets Qwen3's, a model has its own",
                 dir.c_str(), name);
    }
    Json config;
    config.type = Json::OBJECT;
    if (file_exists(config_path)) config = json_parse_file(config_path);
    refuse_settings(config, config_path);
    return complete ? load_tokenizer_json(dir, config) : load_tokenizer_pair(dir, config);
}
