#include "parallel.h"

#include <dlfcn.h>
#include <sched.h>

namespace sparcom {
namespace {

struct OpenMP {
  void (*parallel)(void (*)(void*), void*, unsigned, unsigned) = nullptr;
  int (*max_threads)() = nullptr;
  int (*thread_num)() = nullptr;
  int (*num_threads)() = nullptr;
  const char* library = "";

  OpenMP() {
    void* const p = dlsym(RTLD_DEFAULT, "GOMP_parallel");
    void* const m = dlsym(RTLD_DEFAULT, "omp_get_max_threads");
    void* const t = dlsym(RTLD_DEFAULT, "omp_get_thread_num");
    void* const n = dlsym(RTLD_DEFAULT, "omp_get_num_threads");
    if (!p || !m || !t || !n) return;
    parallel = reinterpret_cast<decltype(parallel)>(p);
    max_threads = reinterpret_cast<int (*)()>(m);
    thread_num = reinterpret_cast<int (*)()>(t);
    num_threads = reinterpret_cast<int (*)()>(n);
    Dl_info info;
    library = dladdr(p, &info) && info.dli_fname ? info.dli_fname : "unknown";
  }
};

// Looked up at the first use, not at load: torch may be imported after this library. While the
// process has no OpenMP, each use looks again.
const OpenMP& openmp() {
  static OpenMP found;
  if (!found.parallel) found = OpenMP();
  return found;
}

struct Call {
  void (*body)(void*, int, int);
  void* context;
};

void on_thread(void* argument) {
  const Call* call = static_cast<const Call*>(argument);
  call->body(call->context, openmp().thread_num(), openmp().num_threads());
}

}  // namespace

int max_threads() { return openmp().parallel ? openmp().max_threads() : 1; }

void pause_thread() { sched_yield(); }

const char* openmp_library() { return openmp().library; }

void parallel(int want, void (*body)(void*, int, int), void* context) {
  if (want <= 1 || !openmp().parallel) return body(context, 0, 1);
  Call call{body, context};
  openmp().parallel(on_thread, &call, unsigned(want), 0);
}

}  // namespace sparcom
