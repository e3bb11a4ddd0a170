// cuda_bf16.h: the sources name no more of it than what __CUDA_ARCH__ guards; see cuda_runtime.h.
#pragma once
