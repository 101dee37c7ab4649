//! The names that files of weights may mention.

/// Whether `module.name` is something that files of weights are made of.
///
/// Nothing of it is ever run; a name that is not here is refused because the file is then not what it is taken
/// for.
pub fn is_known(module: &str, name: &str) -> bool {
    match module {
        "builtins" | "__builtin__" => {
            ["set", "frozenset", "dict", "list", "tuple", "slice"].contains(&name)
        }
        "collections" => ["OrderedDict", "defaultdict"].contains(&name),
        "torch._utils" => [
            "_rebuild_tensor",
            "_rebuild_tensor_v2",
            "_rebuild_parameter",
            "_rebuild_parameter_with_state",
        ]
        .contains(&name),
        "torch.jit._pickle" => name.starts_with("build_"),
        "torch.nn.parameter" => name == "Parameter",
        "torch" => {
            name.ends_with("Storage")
                || [
                    "Size", "device", "float16", "bfloat16", "float32", "float64", "int64",
                ]
                .contains(&name)
        }
        // What a checkpoint says of its training: options, the best fitness.
        "argparse" => name == "Namespace",
        "pathlib" | "pathlib._local" => name.ends_with("Path"),
        "datetime" => ["datetime", "date"].contains(&name),
        "_codecs" => name == "encode",
        "numpy" => ["dtype", "ndarray", "float64", "float32", "int64"].contains(&name),
        "numpy.core.multiarray" | "numpy._core.multiarray" => {
            ["scalar", "_reconstruct"].contains(&name)
        }
        _ => is_network(module),
    }
}

/// Whether classes of the Python module are parts of networks.
fn is_network(module: &str) -> bool {
    let own = module.strip_prefix("yolov5.").unwrap_or(module);
    let within = |package: &str| {
        let rest = own.strip_prefix(package);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    module.starts_with("torch.nn.modules.")
        || within("models")
        || within("utils.activations")
        || within("__torch__")
}
