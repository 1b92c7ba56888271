// The native engine tested on its own, for the sanitizers: every kernel table against the scalar one, the
// forward pass over chunkings, batches and thread counts, the sampler, the thread pool.
#include "kernels/dispatch.h"
#include "tests/check.h"

namespace puna::test {

std::vector<const char*> runnable_isas() {
    std::vector<const char*> names;
    for (const IsaInfo& info : list_isas()) {
        if (info.supported)
            names.push_back(info.name);
        else
            std::printf("not exercised on this machine: %s\n", info.name);
    }
    return names;
}

}  // namespace puna::test

int main() {
    puna::test::test_kernels();
    puna::test::test_forward();
    puna::test::test_sampler();
    puna::test::test_pool();
    std::printf("%d passed, %d failed\n", puna::test::checks - puna::test::failures, puna::test::failures);
    return puna::test::failures == 0 ? 0 : 1;
}
