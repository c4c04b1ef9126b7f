// Threads of whoever runs us.
//
// No OpenMP is linked. torch loads a libgomp and calls it for its own loops; vLLM on CPU preloads
// Intel's libiomp5, which speaks libgomp's interface, and pins its threads. We look the entry
// points up in the running process, so that our loops run on those very threads, with their count
// and their pinning, and no second runtime enters the process. Without one, loops run serially and
// `openmp_library` says so.
#pragma once

namespace sparcom {

// How many threads `parallel` would use now (torch.set_num_threads changes it).
int max_threads();

// Calls body(context, thread, n_threads) once on each of up to `want` threads, and waits. Inside
// another parallel region it may be a single thread.
void parallel(int want, void (*body)(void* context, int thread, int n_threads), void* context);

// Lets another thread run, in a loop that waits for it.
void pause_thread();

// The file that the OpenMP entry points come from; empty: none, loops are serial.
const char* openmp_library();

// Runs f(thread, n_threads) on each thread.
template <class F>
void parallel_for_threads(int want, F&& f) {
  parallel(want, [](void* c, int t, int n) { (*static_cast<F*>(c))(t, n); }, &f);
}

}  // namespace sparcom
