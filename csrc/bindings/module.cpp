#include "base/check.h"
#include "bindings/bindings.h"

NB_MODULE(_native, m) {
    m.doc() = "Puna's native engine. Its public face is puna.engine; nothing here is a stable interface.";
    // At exit an engine may still be alive on its thread; that is no leak worth a page of text.
    nb::set_leak_warnings(false);
    // The class that NativeError of puna.errors translates from, see puna/engine/native.py.
    nb::exception<puna::Error>(m, "NativeError", nb::module_::import_("puna.errors").attr("NativeError"));
    puna::bind_isa(m);
    puna::bind_pack(m);
    puna::bind_model(m);
    puna::bind_sampler(m);
    puna::bind_runner(m);
    puna::bind_kernels(m);
    puna::bind_probe(m);
    puna::bind_tokens(m);
}
