#include "model/runner.h"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/vector.h>

#include "base/check.h"
#include "bindings/bindings.h"

namespace puna {

namespace {

// tokens [T] of all slices; slices [S, 2] = (number of new tokens, first position);
// block_tables [S, most blocks]; output_rows [R] into tokens.
Batch make_batch(const Array<int32_t, 1>& tokens, const Array<int64_t, 2>& slices,
                 const Array<int32_t, 2>& block_tables, const Array<int64_t, 1>& output_rows) {
    PUNA_CHECK(slices.shape(1) == 2 && slices.shape(0) == block_tables.shape(0),
               "batch: need (tokens, position) and a block table for every slice");
    Batch batch;
    batch.tokens.assign(tokens.data(), tokens.data() + tokens.shape(0));
    batch.output_rows.assign(output_rows.data(), output_rows.data() + output_rows.shape(0));
    for (size_t i = 0; i < slices.shape(0); i++)
        batch.slices.push_back({slices(i, 0), slices(i, 1), block_tables.data() + i * block_tables.shape(1),
                                static_cast<int64_t>(block_tables.shape(1))});
    return batch;
}

// allowed [R, words], a bit a token from the lowest on; without it all tokens are.
std::vector<const uint32_t*> make_masks(const std::optional<Array<uint32_t, 2>>& allowed, size_t rows,
                                        const ModelConfig& config) {
    std::vector<const uint32_t*> masks(rows, nullptr);
    if (!allowed) return masks;
    PUNA_CHECK(allowed->shape(0) == rows && allowed->shape(1) * 32 >= static_cast<size_t>(config.vocab_size),
               "sample: `allowed` needs a row for each of " + std::to_string(rows) +
                   " output rows and a bit for each of " + std::to_string(config.vocab_size) +
                   " tokens, got " + std::to_string(allowed->shape(0)) + " rows of " +
                   std::to_string(allowed->shape(1) * 32));
    for (size_t i = 0; i < rows; i++) masks[i] = allowed->data() + i * allowed->shape(1);
    return masks;
}

}  // namespace

void bind_runner(nb::module_& m) {
    nb::class_<Runner>(m, "Runner")
        .def(nb::init<const Model&, Cache&, int, std::vector<int32_t>>(), nb::arg("model"), nb::arg("cache"),
             nb::arg("n_threads"), nb::arg("left_out") = std::vector<int32_t>(), nb::keep_alive<1, 2>(),
             nb::keep_alive<1, 3>(), "`left_out`: ids that are never picked.")
        .def(nb::init<const Model&, Cache&, const Runner&, std::vector<int32_t>>(), nb::arg("model"),
             nb::arg("cache"), nb::arg("other"), nb::arg("left_out") = std::vector<int32_t>(),
             nb::keep_alive<1, 2>(), nb::keep_alive<1, 3>(),
             "On the threads of another runner; one of the two computes at a time.")
        .def_prop_ro("n_threads", &Runner::n_threads)
        .def(
            "sample",
            [](Runner& self, const Array<int32_t, 1>& tokens, const Array<int64_t, 2>& slices,
               const Array<int32_t, 2>& block_tables, const Array<int64_t, 1>& output_rows,
               const std::vector<Sampler*>& samplers, const std::optional<Array<uint32_t, 2>>& allowed) {
                const Batch batch = make_batch(tokens, slices, block_tables, output_rows);
                const std::vector<const uint32_t*> masks =
                    make_masks(allowed, samplers.size(), self.config());
                const nb::gil_scoped_release released;
                return self.sample(batch, samplers, masks);
            },
            nb::arg("tokens"), nb::arg("slices"), nb::arg("block_tables"), nb::arg("output_rows"),
            nb::arg("samplers"), nb::arg("allowed") = nb::none(),
            "Run a batch and pick the next tokens of each sampler. A sampler of several output rows, which "
            "follow each other, has guessed the tokens in the later ones: it picks on while they are right. "
            "`allowed` [output rows, words] has a bit a token, from the lowest on.")
        .def(
            "pick_again",
            [](Runner& self, int64_t output, Sampler& sampler, const Array<uint32_t, 1>& allowed) {
                PUNA_CHECK(allowed.shape(0) * 32 >= static_cast<size_t>(self.config().vocab_size),
                           "pick_again: `allowed` needs a bit for each of " +
                               std::to_string(self.config().vocab_size) + " tokens, got " +
                               std::to_string(allowed.shape(0) * 32));
                const nb::gil_scoped_release released;
                return self.pick_again(output, sampler, allowed.data());
            },
            nb::arg("output"), nb::arg("sampler"), nb::arg("allowed"),
            "Pick at an output row of the last call of `sample` as if only these tokens were allowed; only "
            "without temperature, bias and penalties, and where it had no mask. `allowed` [words] as there.")
        .def(
            "logits",
            [](Runner& self, const Array<int32_t, 1>& tokens, const Array<int64_t, 2>& slices,
               const Array<int32_t, 2>& block_tables, const Array<int64_t, 1>& output_rows) {
                const Batch batch = make_batch(tokens, slices, block_tables, output_rows);
                auto out =
                    new_array<float>({output_rows.shape(0), static_cast<size_t>(self.config().vocab_size)});
                const nb::gil_scoped_release released;
                self.logits(batch, out.data());
                return out;
            },
            nb::arg("tokens"), nb::arg("slices"), nb::arg("block_tables"), nb::arg("output_rows"),
            "Run a batch; float32 logits [output rows, vocabulary].")
        .def(
            "hidden",
            [](Runner& self, const Array<int32_t, 1>& tokens, const Array<int64_t, 2>& slices,
               const Array<int32_t, 2>& block_tables, const Array<int64_t, 1>& output_rows) {
                const Batch batch = make_batch(tokens, slices, block_tables, output_rows);
                auto out = new_array<float>({output_rows.shape(0), static_cast<size_t>(self.config().dim)});
                const nb::gil_scoped_release released;
                self.hidden(batch, out.data());
                return out;
            },
            nb::arg("tokens"), nb::arg("slices"), nb::arg("block_tables"), nb::arg("output_rows"),
            "Run a batch; final hidden states [output rows, dim].");
}

}  // namespace puna
