// The threads of the process that loads this library.
//
// No OpenMP is linked. torch loads a libgomp and calls it for its own loops. vLLM on CPU preloads
// Intel's libiomp5, which has libgomp's interface, and pins its threads. The entry points are
// looked up in the running process. So these loops run on the same threads, with the same count and
// pinning, and no second runtime enters the process. Without an OpenMP runtime, loops run serially,
// and `openmp_library` says so.
#pragma once

namespace sparcom {

// How many threads `parallel` uses now (torch.set_num_threads changes it).
int max_threads();

// Calls body(context, thread, n_threads) once on each of up to `want` threads, and waits for them.
// Inside another parallel region there may be one thread only.
void parallel(int want, void (*body)(void* context, int thread, int n_threads), void* context);

// Lets other threads run; for a loop that waits for one of them.
void pause_thread();

// The file that the OpenMP entry points come from; empty: there are none, and loops are serial.
const char* openmp_library();

// Runs f(thread, n_threads) on each thread.
template <class F>
void parallel_for_threads(int want, F&& f) {
  parallel(want, [](void* c, int t, int n) { (*static_cast<F*>(c))(t, n); }, &f);
}

}  // namespace sparcom
