#include "tokens/encoder.h"

#include <algorithm>
#include <map>
#include <utility>

#include "tokens/alphabet.h"
#include "tokens/error.h"
#include "tokens/merging.h"
#include "tokens/unicode.h"
#include "tokens/utf8.h"

namespace puna {

namespace {

// What a pattern may cost: far more than any of a Llama takes, and seconds at most.
constexpr int64_t kSteps = 10'000'000, kStepsPerByte = 256;
// Positions are 32-bit numbers; a step may make a text three times as long.
constexpr size_t kMostBytes = size_t{1} << 29;

// What Python's str.isspace says, by which Llama 3's reference goes.
bool is_space(uint32_t code) { return is_white_space(code) || (code >= 0x1c && code < 0x20); }

}  // namespace

// What one call needs.
struct Encoder::Work {
    std::vector<int32_t> tokens;
    Merging merging;
    std::string spelled;
    int64_t steps;
};

Encoder::Encoder(const TokenTable& table, const EncoderSettings& settings, std::vector<Step> normalizers,
                 std::vector<Step> pre_tokenizers, std::vector<AddedToken> added_tokens)
    : table_(table),
      settings_(settings),
      normalizers_(std::move(normalizers)),
      pre_tokenizers_(std::move(pre_tokenizers)),
      size_(table.size()) {
    std::string text;
    for (uint32_t code = 0; code < short_tokens_.size(); code++) {
        text.clear();
        append_utf8(text, code);
        short_tokens_[code] = table.find(text);
    }
    for (uint32_t byte = 0; byte < 256; byte++) {
        const char name[] = {'<', '0', 'x', "0123456789ABCDEF"[byte >> 4], "0123456789ABCDEF"[byte & 15],
                             '>'};
        fallback_tokens_[byte] = table.find({name, sizeof(name)});
    }
    std::sort(added_tokens.begin(), added_tokens.end(),
              [](const AddedToken& a, const AddedToken& b) { return a.id < b.id; });
    check(added_tokens);
    added_ = added_tokens;
    is_special_.resize(static_cast<size_t>(size_));
    std::vector<AddedToken> raw, normalized;
    for (AddedToken& token : added_tokens) {
        if (token.is_special) is_special_[static_cast<size_t>(token.id)] = true;
        int64_t steps = kSteps;
        for (const Step& step : normalizers_) {
            std::string changed;
            if (token.is_normalized && change(step, {token.text, true}, steps, changed))
                token.text = std::move(changed);
        }
        (token.is_normalized ? normalized : raw).push_back(std::move(token));
    }
    raw_ = AddedTokens(std::move(raw));
    normalized_ = AddedTokens(std::move(normalized));
}

// tokens: sorted by id.
void Encoder::check(const std::vector<AddedToken>& tokens) {
    std::map<std::string_view, int32_t> ids;
    for (const AddedToken& token : tokens) {
        const std::string name =
            "added token " + quoted(token.text) + " must have the id " + std::to_string(token.id);
        PUNA_TOKENS_CHECK(token.id >= 0 && static_cast<uint32_t>(token.id) < kMaxTokens,
                          "token ids must lie from 0 to " + std::to_string(kMaxTokens - 1) + ", got " +
                              std::to_string(token.id));
        const int32_t known = table_.find(token.text),
                      found = ids.emplace(token.text, token.id).first->second;
        const int32_t other = known == kNoToken ? found : known;
        PUNA_TOKENS_CHECK(other == token.id, name + " in the vocabulary, got " + std::to_string(other) +
                                                 "; the file contradicts itself");
        PUNA_TOKENS_CHECK(
            known == token.id || !table_.has(token.id),
            name + ", which " + quoted(table_.spelling(token.id)) + " has; the file contradicts itself");
        PUNA_TOKENS_CHECK(
            &token == tokens.data() || (&token)[-1].id != token.id || (&token)[-1].text == token.text,
            name + ", which " + quoted((&token)[-1].text) + " has; the file contradicts itself");
        size_ = std::max(size_, token.id + 1);
    }
}

const AddedToken* Encoder::added(int32_t id) const {
    const auto place = std::lower_bound(added_.begin(), added_.end(), id,
                                        [](const AddedToken& a, int32_t wanted) { return a.id < wanted; });
    return place != added_.end() && place->id == id ? &*place : nullptr;
}

bool Encoder::has(int32_t id) const { return table_.has(id) || added(id) != nullptr; }

std::string Encoder::token_bytes(int32_t id) const {
    if (const AddedToken* token = added(id)) return token->text;
    PUNA_TOKENS_CHECK(table_.has(id), "token id " + std::to_string(id) +
                                          " is not in the vocabulary, whose ids go from 0 to " +
                                          std::to_string(size_ - 1));
    const std::string_view text = table_.spelling(id);
    const char* const end = text.data() + text.size();
    std::string bytes;
    if (settings_.is_byte_level) {
        for (const char* p = text.data(); p < end;) {
            const Character c = character_at(p, end);
            const int byte = byte_of(c.code);
            // A few vocabularies hold tokens outside of the alphabet; those mean themselves.
            if (byte < 0) return std::string(text);
            bytes += static_cast<char>(byte);
            p += c.bytes;
        }
        return bytes;
    }
    for (size_t byte = 0; text.size() == 6 && byte < 256; byte++)
        if (fallback_tokens_[byte] == id) return std::string(1, static_cast<char>(byte));
    constexpr std::string_view kSpace = "\xe2\x96\x81";
    for (size_t i = 0; i < text.size();) {
        const bool is_space = text.substr(i).starts_with(kSpace);
        bytes += is_space ? ' ' : text[i];
        i += is_space ? kSpace.size() : 1;
    }
    return bytes;
}

std::vector<int32_t> Encoder::encode(std::string_view text, bool continues) const {
    PUNA_TOKENS_CHECK(text.size() <= kMostBytes, "a text may have " + std::to_string(kMostBytes) +
                                                     " bytes, got " + std::to_string(text.size()));
    Work work{{}, {}, {}, kSteps + kStepsPerByte * static_cast<int64_t>(text.size())};
    size_t done = 0;
    const auto cut = [&](size_t end) {
        if (end > done) encode_part(work, {text.substr(done, end - done), done == 0 && !continues});
        done = end;
    };
    if (settings_.most_run > 0 && text.size() > settings_.most_run) {
        size_t in_text = 0, in_run = 0;
        bool is_run_space = false;
        for (size_t at = 0; at < text.size();) {
            const Character c = character_at(text.data() + at, text.data() + text.size());
            const bool is_cut = in_text == settings_.most_characters;
            if (is_space(c.code) != is_run_space || is_cut) {
                is_run_space = is_space(c.code);
                in_run = 0;
            }
            if (is_cut || in_run == settings_.most_run) {
                cut(at);
                in_run = 0;
                if (is_cut) in_text = 0;
            }
            in_text++;
            in_run++;
            at += c.bytes;
        }
    }
    cut(text.size());
    for (const int32_t id : work.tokens)
        PUNA_TOKENS_CHECK(!is_special_[static_cast<size_t>(id)],
                          "vocabulary: ordinary text became the special token " + quoted(added(id)->text) +
                              " (" + std::to_string(id) + "); the model file is not safe to use");
    return std::move(work.tokens);
}

void Encoder::encode_part(Work& work, Piece part) const {
    if (raw_.is_empty()) {
        normalize(work, 0, part);
        return;
    }
    raw_.split(
        part.text,
        [&](size_t begin, size_t end) {
            normalize(work, 0, {part.text.substr(begin, end - begin), part.is_first && begin == 0});
        },
        [&](int32_t id) { work.tokens.push_back(id); });
}

void Encoder::normalize(Work& work, size_t step, Piece piece) const {
    if (step == normalizers_.size()) {
        find_tokens(work, piece);
        return;
    }
    std::string changed;
    if (change(normalizers_[step], piece, work.steps, changed)) piece.text = changed;
    normalize(work, step + 1, piece);
}

void Encoder::find_tokens(Work& work, Piece piece) const {
    if (normalized_.is_empty()) {
        pre_tokenize(work, 0, piece);
        return;
    }
    normalized_.split(
        piece.text,
        [&](size_t begin, size_t end) {
            pre_tokenize(work, 0, {piece.text.substr(begin, end - begin), piece.is_first && begin == 0});
        },
        [&](int32_t id) { work.tokens.push_back(id); });
}

void Encoder::pre_tokenize(Work& work, size_t step, Piece piece) const {
    if (piece.text.empty()) return;
    if (step == pre_tokenizers_.size()) {
        encode_piece(work, piece.text);
    } else if (pre_tokenizers_[step].kind == Step::Kind::split) {
        split(pre_tokenizers_[step], piece, work.steps,
              [&](Piece part) { pre_tokenize(work, step + 1, part); });
    } else {
        std::string changed;
        if (change(pre_tokenizers_[step], piece, work.steps, changed)) piece.text = changed;
        pre_tokenize(work, step + 1, piece);
    }
}

int32_t Encoder::character_token(uint32_t code, std::string_view bytes) const {
    return code < short_tokens_.size() ? short_tokens_[code] : table_.find(bytes);
}

void Encoder::encode_piece(Work& work, std::string_view piece) const {
    if (settings_.is_byte_level) {
        work.spelled.clear();
        for (const char c : piece) {
            const Spelled& spelled = kAlphabet[static_cast<unsigned char>(c)];
            work.spelled.append(spelled.bytes, spelled.length);
        }
        piece = work.spelled;
    }
    if (settings_.ignores_merges) {
        const int32_t id = table_.find(piece);
        if (id != kNoToken) {
            work.tokens.push_back(id);
            return;
        }
    }
    work.merging.clear();
    start_symbols(work, piece);
    work.merging.finish(table_, work.tokens);
}

// A symbol for each character. The order of unknown ones beside fallbacks is that of the tokenizers library.
void Encoder::start_symbols(Work& work, std::string_view piece) const {
    const char* const end = piece.data() + piece.size();
    bool has_unknown = false;
    const auto put_unknown = [&] {
        if (has_unknown) work.merging.add(settings_.unknown);
        has_unknown = false;
    };
    for (const char* p = piece.data(); p < end;) {
        const Character c = character_at(p, end);
        const std::string_view bytes(p, c.bytes);
        p += c.bytes;
        const int32_t id = character_token(c.code, bytes);
        if (id != kNoToken) {
            put_unknown();
            work.merging.add(id);
            continue;
        }
        const auto fallback = [&](char byte) { return fallback_tokens_[static_cast<unsigned char>(byte)]; };
        if (settings_.has_byte_fallback &&
            std::none_of(bytes.begin(), bytes.end(), [&](char byte) { return fallback(byte) == kNoToken; })) {
            for (const char byte : bytes) work.merging.add(fallback(byte));
            continue;
        }
        if (settings_.unknown == kNoToken) continue;
        if (!settings_.fuses_unknown) put_unknown();
        has_unknown = true;
    }
    put_unknown();
}

}  // namespace puna
