#include "tokens/json.h"

#include <vector>

#include "tokens/error.h"
#include "tokens/json_reader.h"

namespace puna {

namespace {

void read_vocab(JsonReader& reader, TokenTable& table) {
    reader.need('{');
    std::string token;
    if (!reader.take('}')) do {
            reader.string(token);
            reader.need(':');
            table.add(token, reader.number());
        } while (reader.another('}'));
    table.index_tokens();
}

void read_merges(JsonReader& reader, TokenTable& table) {
    constexpr size_t kBlock = 512;
    std::vector<std::string> parts(kBlock);
    std::vector<std::string_view> views;
    size_t n = 0;  // of `parts` in use
    std::string line;
    const auto flush = [&] {
        views.assign(parts.begin(), parts.begin() + static_cast<ptrdiff_t>(n));
        table.add_merges(views);
        n = 0;
    };
    reader.need('[');
    if (!reader.take(']')) do {
            if (reader.take('[')) {
                reader.string(parts[n++]);
                reader.need(',');
                reader.string(parts[n++]);
                reader.need(']');
            } else {
                reader.string(line);
                if (line.starts_with("#version")) continue;
                const size_t space = line.find(' ');
                if (space == std::string::npos || line.find(' ', space + 1) != std::string::npos)
                    reader.fail("a merge must be two tokens with one space between, got " + quoted(line));
                parts[n++].assign(line, 0, space);
                parts[n++].assign(line, space + 1);
            }
            if (n == kBlock) flush();
        } while (reader.another(']'));
    flush();
    table.index_merges();
}

// A stretch of the document that is replaced.
struct Cut {
    size_t begin, end;
    const char* content;
};

void write_string(std::string& out, std::string_view text) {
    out += '"';
    for (const char c : text) {
        if (c == '"' || c == '\\') {
            out += '\\';
            out += c;
        } else if (static_cast<unsigned char>(c) < 0x20) {
            out += "\\u00";
            out += "0123456789abcdef"[c >> 4];
            out += "0123456789abcdef"[c & 15];
        } else {
            out += c;
        }
    }
    out += '"';
}

}  // namespace

TokenizerJson read_tokenizer_json(std::string_view text) {
    TokenizerJson result;
    JsonReader reader(text);
    std::vector<Cut> cuts;
    size_t merges = 0;  // where they are, 0 if they are not
    bool has_model = false, has_vocab = false, has_merges = false;
    const auto once = [&](bool& seen, const char* key) {
        if (seen) reader.fail(std::string("the key '") + key + "' is given twice");
        seen = true;
    };
    const auto read_model = [&] {
        std::string key;
        reader.need('{');
        if (!reader.take('}')) do {
                reader.string(key);
                reader.need(':');
                const char first = reader.peek();
                const size_t begin = reader.position();
                if (key == "vocab") once(has_vocab, "vocab");
                if (key == "merges") once(has_merges, "merges");
                if (key == "vocab" && first == '{') {
                    read_vocab(reader, result.table);
                    cuts.push_back({begin, reader.position(), "{}"});
                } else {
                    reader.skip();
                    if (key == "merges" && first == '[') {
                        merges = begin;
                        cuts.push_back({begin, reader.position(), "[]"});
                    }
                }
            } while (reader.another('}'));
    };
    reader.need('{');
    std::string key;
    if (!reader.take('}')) do {
            reader.string(key);
            reader.need(':');
            if (key == "model") once(has_model, "model");
            if (key == "model" && reader.peek() == '{')
                read_model();
            else
                reader.skip();
        } while (reader.another('}'));
    if (reader.peek() != '\0' || reader.position() < text.size())
        reader.fail("something follows the document");
    if (merges != 0 && result.table.size() > 0) {
        reader.go_to(merges);
        read_merges(reader, result.table);
    }
    size_t done = 0;
    for (const Cut& cut : cuts) {
        result.rest.append(text, done, cut.begin - done).append(cut.content);
        done = cut.end;
    }
    result.rest.append(text, done);
    return result;
}

std::string vocab_json(const TokenTable& table) {
    std::string out = "{";
    for (int32_t id = 0; id < table.size(); id++) {
        if (!table.has(id)) continue;
        if (out.size() > 1) out += ", ";
        write_string(out, table.spelling(id));
        out += ": " + std::to_string(id);
    }
    return out + "}";
}

std::string merges_json(const TokenTable& table) {
    bool has_space = false;
    for (int32_t id = 0; id < table.size(); id++)
        has_space |= table.has(id) && table.spelling(id).find(' ') != std::string_view::npos;
    std::string out = "[";
    for (uint32_t rank = 0; rank < table.n_merges(); rank++) {
        const auto left = table.spelling(table.merge(rank).left),
                   right = table.spelling(table.merge(rank).right);
        if (rank > 0) out += ", ";
        if (has_space) {
            out += '[';
            write_string(out, left);
            out += ", ";
            write_string(out, right);
            out += ']';
        } else {
            write_string(out, std::string(left).append(" ").append(right));
        }
    }
    return out + "]";
}

}  // namespace puna
