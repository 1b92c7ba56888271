#include "sample/sampler.h"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/vector.h>

#include "base/check.h"
#include "bindings/bindings.h"

namespace puna {

void bind_sampler(nb::module_& m) {
    nb::class_<Sample>(m, "Sample")
        .def_ro("token", &Sample::token)
        .def_ro("is_finite", &Sample::is_finite)
        .def_ro("logprob", &Sample::logprob)
        .def_ro("top", &Sample::top);

    nb::class_<Sampler>(m, "Sampler")
        .def(
            "__init__",
            [](Sampler* self, float temperature, int32_t top_k, float top_p, float min_p,
               float repetition_penalty, float frequency_penalty, float presence_penalty, uint64_t seed,
               int32_t top_logprobs, std::vector<std::pair<int32_t, float>> logit_bias) {
                SamplingSettings s;
                s.temperature = temperature;
                s.top_k = top_k;
                s.top_p = top_p;
                s.min_p = min_p;
                s.repetition_penalty = repetition_penalty;
                s.frequency_penalty = frequency_penalty;
                s.presence_penalty = presence_penalty;
                s.seed = seed;
                s.top_logprobs = top_logprobs;
                s.logit_bias = std::move(logit_bias);
                new (self) Sampler(std::move(s));
            },
            nb::kw_only(), nb::arg("temperature"), nb::arg("top_k"), nb::arg("top_p"), nb::arg("min_p"),
            nb::arg("repetition_penalty"), nb::arg("frequency_penalty"), nb::arg("presence_penalty"),
            nb::arg("seed"), nb::arg("top_logprobs"), nb::arg("logit_bias"))
        .def(
            "observe",
            [](Sampler& self, const Array<int32_t, 1>& tokens) {
                self.observe(tokens.data(), static_cast<int64_t>(tokens.shape(0)));
            },
            nb::arg("tokens"), "Tokens of the prompt, for the repetition penalty.")
        .def(
            "copy", [](const Sampler& self) { return self; },
            "A sampler that goes on from the same state: the same penalties, the same next draw.")
        .def(
            "pick",
            [](Sampler& self, const Array<float, 1>& logits,
               const std::optional<Array<uint32_t, 1>>& allowed) {
                std::vector<float> copy(logits.data(), logits.data() + logits.shape(0)), scratch;
                PUNA_CHECK(!allowed || allowed->shape(0) * 32 >= copy.size(),
                           "pick: `allowed` needs a bit for each of " + std::to_string(copy.size()) +
                               " tokens, got " + std::to_string(allowed->shape(0) * 32));
                return self.pick(copy.data(), static_cast<int64_t>(copy.size()), scratch,
                                 allowed ? allowed->data() : nullptr);
            },
            nb::arg("logits"), nb::arg("allowed") = nb::none(),
            "The next token for these logits, as in a step; `allowed` has a bit a token, from the lowest "
            "on.");
}

}  // namespace puna
