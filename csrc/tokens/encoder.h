// Text to tokens: find added tokens, rewrite, cut, merge. What a tokenizer.json describes comes down to these
// steps.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "tokens/added_tokens.h"
#include "tokens/step.h"
#include "tokens/table.h"

namespace puna {

struct EncoderSettings {
    bool is_byte_level = false;      // pieces are spelled in GPT-2's alphabet before merging
    bool ignores_merges = false;     // a piece that is a token is that token
    bool has_byte_fallback = false;  // a character without a token becomes <0x41> for each of its bytes
    bool fuses_unknown = false;      // several unknown characters are one unknown token
    int32_t unknown = kNoToken;      // without one, unknown characters are dropped
    // Llama 3's reference cuts a text there before it looks for tokens; 0 for never.
    size_t most_characters = 0, most_run = 0;
};

// Safe to use from several threads.
class Encoder {
  public:
    // Keeps the table by reference. Throws TokenizerError where the added tokens contradict it.
    Encoder(const TokenTable& table, const EncoderSettings& settings, std::vector<Step> normalizers,
            std::vector<Step> pre_tokenizers, std::vector<AddedToken> added_tokens);

    // Throws TokenizerError where text becomes a special token, or the pattern takes too long.
    // continues: there is something before this text.
    std::vector<int32_t> encode(std::string_view text, bool continues) const;

    // The bytes that a token stands for; an added token's are its text. The id must be in the vocabulary.
    std::string token_bytes(int32_t id) const;
    bool has(int32_t id) const;
    // One more than the highest id.
    int32_t size() const { return size_; }

  private:
    struct Work;
    void encode_part(Work& work, Piece part) const;
    void normalize(Work& work, size_t step, Piece piece) const;
    void find_tokens(Work& work, Piece piece) const;
    void pre_tokenize(Work& work, size_t step, Piece piece) const;
    void encode_piece(Work& work, std::string_view piece) const;
    void start_symbols(Work& work, std::string_view piece) const;
    int32_t character_token(uint32_t code, std::string_view bytes) const;
    const AddedToken* added(int32_t id) const;
    void check(const std::vector<AddedToken>& tokens);

    const TokenTable& table_;
    EncoderSettings settings_;
    std::vector<Step> normalizers_, pre_tokenizers_;
    AddedTokens raw_, normalized_;
    std::vector<AddedToken> added_;  // by id
    std::vector<bool> is_special_;
    std::array<int32_t, 0x180> short_tokens_;   // of the first characters of Unicode, the alphabet among them
    std::array<int32_t, 256> fallback_tokens_;  // of <0x00> to <0xFF>
    int32_t size_;
};

}  // namespace puna
