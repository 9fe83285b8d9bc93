"""What tests and developers need around the product: kernels, API servers, generators."""
