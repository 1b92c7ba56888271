// The submodule puna._native.tokens. Text and spellings are bytes in UTF-8: half a surrogate pair has none,
// so that whoever makes the bytes must say what becomes of it.
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <map>
#include <utility>

#include "bindings/bindings.h"
#include "tokens/encoder.h"
#include "tokens/error.h"
#include "tokens/json.h"
#include "tokens/matcher.h"
#include "tokens/tiktoken.h"

namespace puna {

namespace {

std::string_view view(const nb::bytes& bytes) { return {bytes.c_str(), bytes.size()}; }
nb::bytes to_bytes(std::string_view text) { return nb::bytes(text.data(), text.size()); }

template <class T>
T named(const std::map<std::string, T>& values, const std::string& name) {
    const auto found = values.find(name);
    PUNA_TOKENS_CHECK(found != values.end(), quoted(name) + " is not known");
    return found->second;
}

Pattern make_pattern(const nb::bytes& pattern, bool is_literal) {
    return is_literal ? Pattern::literal(view(pattern)) : Pattern(view(pattern));
}

Step make_prepend(const nb::bytes& text, const std::string& when) {
    using When = Step::When;
    static const std::map<std::string, When> whens = {
        {"always", When::always}, {"never", When::never}, {"first", When::first}, {"missing", When::missing}};
    Step step;
    step.kind = Step::Kind::prepend;
    step.text = view(text);
    step.when = named(whens, when);
    return step;
}

Step make_replace(const nb::bytes& pattern, bool is_literal, const nb::bytes& content) {
    Step step;
    step.kind = Step::Kind::replace;
    step.pattern = make_pattern(pattern, is_literal);
    step.text = view(content);
    return step;
}

// For what Python's library does best, such as Unicode's normal forms.
Step make_call(const nb::typed<nb::callable, nb::bytes(nb::bytes)>& function) {
    Step step;
    step.kind = Step::Kind::call;
    step.function = [function](std::string_view text) {
        const nb::gil_scoped_acquire held;
        return std::string(view(nb::cast<nb::bytes>(function(to_bytes(text)))));
    };
    return step;
}

Step make_split(const nb::bytes& pattern, bool is_literal, const std::string& behavior, bool is_inverted) {
    using Behavior = Step::Behavior;
    static const std::map<std::string, Behavior> behaviors = {
        {"Isolated", Behavior::isolated},
        {"Removed", Behavior::removed},
        {"Contiguous", Behavior::contiguous},
        {"MergedWithPrevious", Behavior::merged_with_previous},
        {"MergedWithNext", Behavior::merged_with_next}};
    Step step;
    step.pattern = make_pattern(pattern, is_literal);
    step.behavior = named(behaviors, behavior);
    step.is_inverted = is_inverted;
    return step;
}

void bind_table(nb::module_& m) {
    nb::class_<TokenTable>(m, "TokenTable", "Tokens by id and spelling, and the merges that build them.")
        .def(
            "__init__",
            [](TokenTable* self, const std::vector<nb::bytes>& tokens) {
                TokenTable table;
                int64_t id = 0;
                for (const nb::bytes& token : tokens) table.add(view(token), id++);
                table.index_tokens();
                new (self) TokenTable(std::move(table));
            },
            nb::arg("tokens"), "Tokens by their spelling, with ids from 0 on, and no merges.")
        .def_static(
            "from_json",
            [](const nb::bytes& text) {
                TokenizerJson json;
                {
                    const nb::gil_scoped_release released;
                    json = read_tokenizer_json({text.c_str(), text.size()});
                }
                return std::pair(std::move(json.table), to_bytes(json.rest));
            },
            nb::arg("text"), "What a tokenizer.json has; the second is the document without it.")
        .def_static(
            "from_tiktoken",
            [](const nb::bytes& text) {
                const nb::gil_scoped_release released;
                return read_tiktoken({text.c_str(), text.size()});
            },
            nb::arg("text"), "What Llama 3's tokenizer.model has.")
        .def(
            "add_merges",
            [](TokenTable& self, const std::vector<std::pair<nb::bytes, nb::bytes>>& merges) {
                std::vector<std::string_view> parts;
                for (const auto& [left, right] : merges) {
                    parts.push_back(view(left));
                    parts.push_back(view(right));
                }
                self.add_merges(parts);
                self.index_merges();
            },
            nb::arg("merges"), "Pairs of tokens in the order in which they merge.")
        .def(
            "add_merges_by_rank",
            [](TokenTable& self, const std::vector<int32_t>& tokens) {
                self.add_merges_by_rank(tokens);
                self.index_merges();
            },
            nb::arg("tokens"), "Every way to put one of these together from two of them, in their order.")
        .def(
            "find",
            [](const TokenTable& self, const nb::bytes& spelling) { return self.find(view(spelling)); },
            nb::arg("spelling"), "The id of a token, -1 where there is none.")
        .def_prop_ro("size", &TokenTable::size, "One more than the highest id.")
        .def("vocab_json", [](const TokenTable& self) { return to_bytes(vocab_json(self)); })
        .def("merges_json", [](const TokenTable& self) { return to_bytes(merges_json(self)); });
}

}  // namespace

void bind_tokens(nb::module_& m) {
    nb::module_ t = m.def_submodule("tokens", "Byte-pair encoding.");
    nb::exception<TokenizerError>(t, "TokenizerError",
                                  nb::module_::import_("puna.errors").attr("TokenizerError"));
    bind_table(t);

    t.def(
        "matches",
        [](const nb::bytes& pattern, bool is_literal, const nb::bytes& text) {
            int64_t steps = 100'000'000;
            const Pattern compiled = make_pattern(pattern, is_literal);
            Matcher matcher(compiled, view(text), steps);
            std::vector<std::pair<size_t, size_t>> found;
            for (Span match{}; matcher.next(match);) found.emplace_back(match.begin, match.end);
            return found;
        },
        nb::arg("pattern"), nb::arg("is_literal"), nb::arg("text"),
        "Where a pattern matches, from byte to byte, for tests.");

    nb::class_<Step>(t, "Step", "A change of a text, or a cut, before merging.")
        .def_static("prepend", &make_prepend, nb::arg("text"), nb::arg("when"))
        .def_static("replace", &make_replace, nb::arg("pattern"), nb::arg("is_literal"), nb::arg("content"))
        .def_static("call", &make_call, nb::arg("function"))
        .def_static("split", &make_split, nb::arg("pattern"), nb::arg("is_literal"), nb::arg("behavior"),
                    nb::arg("is_inverted"));

    nb::class_<AddedToken>(t, "AddedToken")
        .def(
            "__init__",
            [](AddedToken* self, int32_t id, const nb::bytes& text, bool is_special, bool takes_left,
               bool takes_right, bool is_normalized) {
                new (self) AddedToken{
                    id, std::string(view(text)), is_special, takes_left, takes_right, is_normalized};
            },
            nb::kw_only(), nb::arg("id"), nb::arg("text"), nb::arg("is_special"), nb::arg("takes_left"),
            nb::arg("takes_right"), nb::arg("is_normalized"));

    nb::class_<Encoder>(t, "Encoder")
        .def(
            "__init__",
            [](Encoder* self, const TokenTable& table, std::vector<Step> normalizers,
               std::vector<Step> pre_tokenizers, std::vector<AddedToken> added_tokens, bool is_byte_level,
               bool ignores_merges, bool has_byte_fallback, bool fuses_unknown, int32_t unknown,
               size_t most_characters, size_t most_run) {
                const EncoderSettings settings{is_byte_level, ignores_merges, has_byte_fallback,
                                               fuses_unknown, unknown,        most_characters,
                                               most_run};
                new (self) Encoder(table, settings, std::move(normalizers), std::move(pre_tokenizers),
                                   std::move(added_tokens));
            },
            nb::kw_only(), nb::arg("table"), nb::arg("normalizers"), nb::arg("pre_tokenizers"),
            nb::arg("added_tokens"), nb::arg("is_byte_level"), nb::arg("ignores_merges"),
            nb::arg("has_byte_fallback"), nb::arg("fuses_unknown"), nb::arg("unknown"),
            nb::arg("most_characters"), nb::arg("most_run"), nb::keep_alive<1, 2>())
        .def(
            "encode",
            [](const Encoder& self, const nb::bytes& text, bool continues) {
                const nb::gil_scoped_release released;
                return self.encode({text.c_str(), text.size()}, continues);
            },
            nb::arg("text"), nb::arg("continues"), "Tokens of a text; continues: something is before it.")
        .def(
            "token_bytes", [](const Encoder& self, int32_t id) { return to_bytes(self.token_bytes(id)); },
            nb::arg("id"), "The bytes that a token stands for.")
        .def("has", &Encoder::has, nb::arg("id"), "Whether the vocabulary has that id.")
        .def_prop_ro("size", &Encoder::size, "One more than the highest id.");
}

}  // namespace puna
