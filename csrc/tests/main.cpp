// The native engine tested on its own, for the sanitizers: every kernel table against the scalar one, the
// forward pass over chunkings, batches and thread counts, the sampler, the thread pool, byte-pair encoding.
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <iterator>

#include "kernels/dispatch.h"
#include "tests/check.h"

namespace puna::test {

std::vector<const char*> runnable_isas() {
    std::vector<const char*> names;
    for (const IsaInfo& info : list_isas())
        if (info.supported) names.push_back(info.name);
    return names;
}

}  // namespace puna::test

namespace {

struct Test {
    const char* name;
    void (*run)();
};
constexpr Test kTests[] = {{"kernels", puna::test::test_kernels}, {"attention", puna::test::test_attention},
                           {"fuzz", puna::test::test_fuzz},       {"forward", puna::test::test_forward},
                           {"sampler", puna::test::test_sampler}, {"pool", puna::test::test_pool},
                           {"probe", puna::test::test_probe},     {"tokens", puna::test::test_tokens}};

}  // namespace

// Runs the tests that are named, all without a name.
int main(int n_arguments, char** arguments) {
    for (int i = 1; i < n_arguments; i++) {
        const auto is_named = [&](const Test& test) { return std::strcmp(test.name, arguments[i]) == 0; };
        if (std::none_of(std::begin(kTests), std::end(kTests), is_named)) {
            std::fprintf(stderr, "no test is called %s; there are:", arguments[i]);
            for (const Test& test : kTests) std::fprintf(stderr, " %s", test.name);
            std::fprintf(stderr, "\n");
            return 2;
        }
    }
    for (const puna::IsaInfo& info : puna::list_isas())
        if (!info.supported) std::printf("not exercised on this machine: %s\n", info.name);
    for (const Test& test : kTests) {
        const auto is_wanted = [&](const char* name) { return std::strcmp(test.name, name) == 0; };
        if (n_arguments == 1 || std::any_of(arguments + 1, arguments + n_arguments, is_wanted)) test.run();
    }
    std::printf("%d passed, %d failed\n", puna::test::checks - puna::test::failures, puna::test::failures);
    return puna::test::failures == 0 ? 0 : 1;
}
