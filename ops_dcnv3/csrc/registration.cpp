// The schemas. Pairs are (h, w). With mask_is_logits the weights are the softmax of the mask over a group's points. The
// backward returns empty tensors for what is not needed.
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY(dcnv3, m) {
  m.def(
      "forward(Tensor input, Tensor offset, Tensor mask, int[2] kernel_size, int[2] stride, int[2] padding, "
      "int[2] dilation, int groups, float offset_scale, bool mask_is_logits=False) -> Tensor");
  m.def(
      "backward(Tensor grad_output, Tensor input, Tensor offset, Tensor mask, int[2] kernel_size, int[2] stride, "
      "int[2] padding, int[2] dilation, int groups, float offset_scale, bool mask_is_logits, bool needs_input, "
      "bool needs_sampling, bool deterministic) -> (Tensor, Tensor, Tensor)");
}
