#include "base/check.h"
#include "bindings/bindings.h"

NB_MODULE(_native, m) {
    m.doc() = "Puna's native engine. Its public face is puna.engine; nothing here is a stable interface.";
    // The class that NativeError of puna.errors translates from, see puna/engine/native.py.
    nb::exception<puna::Error>(m, "NativeError", nb::module_::import_("puna.errors").attr("NativeError"));
    puna::bind_isa(m);
    puna::bind_pack(m);
    puna::bind_model(m);
    puna::bind_sampler(m);
    puna::bind_runner(m);
    puna::bind_kernels(m);
}
