// added_tokens.h: the tokens that are cut out of a text before anything else is done with it (<|im_start|> and the like): the leftmost
// first, of several there the longest. They are kept in a trie, so that a place in the text is looked at once, however many there are.
//
// defines: AddedToken, AddedTokens, added_tokens_insert, added_token_at
#pragma once
#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

struct AddedToken {
    std::string text;
    int id;
};

constexpr size_t longest_added_token = 1024;  // bytes: bounds the time at one place of a text

struct AddedTokens {
    std::vector<AddedToken> tokens;
    std::unordered_map<std::string, size_t> by_text;  // where in `tokens`
    std::unordered_map<int, size_t> by_id;
    std::unordered_map<uint64_t, int> next;  // node << 8 | byte -> node; node 0 is the root
    std::vector<int> id_at = {-1};           // of every node: the id of the token that ends there, or -1
    bool starts[256] = {};                   // a token starts with this byte
};

// Adds a token whose text and id are new.
inline void added_tokens_insert(AddedTokens& all, const std::string& text, int id) {
    all.by_text[text] = all.by_id[id] = all.tokens.size();
    all.tokens.push_back({text, id});
    all.starts[(unsigned char)text[0]] = true;
    int node = 0;
    for (unsigned char byte : text) {
        auto [step, is_new] = all.next.insert({(uint64_t)node << 8 | byte, (int)all.id_at.size()});
        if (is_new) all.id_at.push_back(-1);
        node = step->second;
    }
    all.id_at[node] = id;
}

// Length of the longest added token at p < end, or 0; *id becomes its id.
inline size_t added_token_at(const AddedTokens& all, const char* p, const char* end, int* id) {
    if (!all.starts[(unsigned char)*p]) return 0;
    size_t longest = 0;
    int node = 0;
    for (const char* q = p; q < end; q++) {
        auto step = all.next.find((uint64_t)node << 8 | (unsigned char)*q);
        if (step == all.next.end()) break;
        node = step->second;
        if (all.id_at[node] < 0) continue;
        *id = all.id_at[node];
        longest = (size_t)(q + 1 - p);
    }
    return longest;
}
