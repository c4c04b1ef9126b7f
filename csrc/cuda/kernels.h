// Which kernel a call needs. It has no device code, so that plain C++ can tell, too.
#pragma once

#include "../act_mul_count.h"
#include "../act_mul_count_quant.h"
#include "../dtypes.h"
#include "launch.h"

namespace sparcom {

// In place of an Activation: that of the struct, at run time.
constexpr int any_activation = -1;

// The usual calls, gated or ungated, count by one range of the gate, ablate nothing, and have an
// activation without parameters and a gate apart from up. They do without the branches and
// registers that `any` other call needs. Calls with signs, usual and others, have kernels of their
// own, so that those without pay nothing for them.
enum class Call { gated, ungated, any, signs, any_signs };

template <Call C>
constexpr bool usual_call = C != Call::any && C != Call::any_signs;
template <Call C>
constexpr bool with_signs = C == Call::signs || C == Call::any_signs;

// Calls run.template of<T, n, A, C>() for the kernel that a call needs: one for each dtype,
// activation and kind of call if memory is aligned, two for each dtype if it is not. Activations
// with parameters have only Call::any and Call::any_signs.
template <class T, int n, int A, class Run>
void with_kernel_of_activation(const ActMulCount& p, Run& run) {
  const bool any = is_any(p);
  if (p.signs)
    return any ? run.template of<T, n, A, Call::any_signs>()
               : run.template of<T, n, A, Call::signs>();
  if (any) return run.template of<T, n, A, Call::any>();
  p.up ? run.template of<T, n, A, Call::gated>() : run.template of<T, n, A, Call::ungated>();
}

template <class T, int n, int A, class Run>
void with_kernel_of_any(const ActMulCount& p, Run& run) {
  p.signs ? run.template of<T, n, A, Call::any_signs>() : run.template of<T, n, A, Call::any>();
}

template <class T, class Run>
void with_kernel_of(const ActMulCount& p, const Launch& l, Run& run) {
  constexpr int n = 16 / sizeof(T);
  if (!l.vectors) return with_kernel_of_any<T, 1, any_activation>(p, run);
  switch (p.activation) {
    case Activation::silu: return with_kernel_of_activation<T, n, int(Activation::silu)>(p, run);
    case Activation::gelu: return with_kernel_of_activation<T, n, int(Activation::gelu)>(p, run);
    case Activation::gelu_tanh:
      return with_kernel_of_activation<T, n, int(Activation::gelu_tanh)>(p, run);
    case Activation::relu: return with_kernel_of_activation<T, n, int(Activation::relu)>(p, run);
    case Activation::relu2: return with_kernel_of_activation<T, n, int(Activation::relu2)>(p, run);
    case Activation::swiglu: return with_kernel_of_any<T, n, int(Activation::swiglu)>(p, run);
    case Activation::swiglu_step:
      return with_kernel_of_any<T, n, int(Activation::swiglu_step)>(p, run);
    case Activation::situ: return with_kernel_of_any<T, n, int(Activation::situ)>(p, run);
  }
}

// run.template of<T, n, A, C, Q>() for act_mul_count_quant. Of the usual calls it has those of silu
// with a gate apart from up, which are nearly all that is quantised in groups.
template <class T, Quantised Q, class Run>
void with_quant_kernel_of(const ActMulCount& p, Run& run) {
  constexpr int n = 16 / sizeof(T), silu = int(Activation::silu);
  const bool usual = !is_any(p) && p.activation == Activation::silu && p.up;
  if (usual)
    return p.signs ? run.template of<T, n, silu, Call::signs, Q>()
                   : run.template of<T, n, silu, Call::gated, Q>();
  p.signs ? run.template of<T, n, any_activation, Call::any_signs, Q>()
          : run.template of<T, n, any_activation, Call::any, Q>();
}

template <class T, class Run>
void with_quant_kernel_to(const ActMulCount& p, Quantised to, Run& run) {
  switch (to) {
    case Quantised::fp8: return with_quant_kernel_of<T, Quantised::fp8>(p, run);
    case Quantised::int8: return with_quant_kernel_of<T, Quantised::int8>(p, run);
  }
}

template <class Run>
void with_quant_kernel(const ActMulCount& p, const Quant& to, Run run) {
  p.dtype == Dtype::bf16 ? with_quant_kernel_to<Bf16>(p, to.dtype, run)
                         : with_quant_kernel_to<Fp16>(p, to.dtype, run);
}

template <class Run>
void with_kernel(const ActMulCount& p, const Launch& l, Run run) {
  switch (p.dtype) {
    case Dtype::fp32: return with_kernel_of<float>(p, l, run);
    case Dtype::bf16: return with_kernel_of<Bf16>(p, l, run);
    case Dtype::fp16: return with_kernel_of<Fp16>(p, l, run);
  }
}

}  // namespace sparcom
