//! Generates the Rust types of the contract from `proto/` with protox, so that no protoc is needed anywhere.
//!
//! Messages with secrets get a `Debug` of their own, which shows everything else: what logs or panics with a message that
//! carries a token does not hand it out.

use std::error::Error;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::{env, fs};

use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, FieldDescriptorProto, FileDescriptorSet};

/// `*_token` fields that are no secrets: positions in a history or a listing.
const OPEN_TOKENS: &[&str] = &["resume_token", "page_token", "next_page_token"];

const PACKAGE: &str = "quiesce.v1";

const PROTOS: &[&str] = &[
    "proto/quiesce/v1/access.proto",
    "proto/quiesce/v1/agent_gateway.proto",
    "proto/quiesce/v1/errors.proto",
    "proto/quiesce/v1/scheduler.proto",
    "proto/quiesce/v1/shutdown_hook.proto",
    "proto/quiesce/v1/types.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    // protox keeps the comments (source info), so that reflection and the golden rendering can show them.
    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_imports(true).include_source_info(true).open_files(PROTOS)?;
    let descriptors = compiler.file_descriptor_set();
    let out = PathBuf::from(env::var("OUT_DIR")?);
    // As the compiler has it: the types of prost know less of the options of a field.
    fs::write(out.join("quiesce_v1_descriptor_set.bin"), compiler.encode_file_descriptor_set())?;
    let secretive = secretive(&descriptors)?;
    let mut debug = String::new();
    for message in &secretive {
        write_debug(&mut debug, message)?;
    }
    fs::write(out.join("quiesce.v1.debug.rs"), debug)?;
    tonic_prost_build::configure()
        .build_client(cfg!(feature = "client"))
        .build_server(cfg!(feature = "server"))
        .codec_path("crate::codec::Codec")
        .skip_debug(secretive.iter().map(|message| format!(".{PACKAGE}.{}", message.name())))
        .compile_fds(descriptors)?;
    Ok(())
}

/// A text that is called a token, unless it is a position.
fn is_secret(field: &FieldDescriptorProto) -> bool {
    let called = field.name() == "token" || field.name().ends_with("_token");
    called && !OPEN_TOKENS.contains(&field.name()) && matches!(field.r#type(), Type::String | Type::Bytes)
}

/// The messages of the contract that have a secret among their own fields.
fn secretive(descriptors: &FileDescriptorSet) -> Result<Vec<DescriptorProto>, String> {
    let ours = descriptors.file.iter().filter(|file| file.package() == PACKAGE);
    let mut found = Vec::new();
    for message in ours.flat_map(|file| &file.message_type) {
        if message.nested_type.iter().any(|nested| nested.field.iter().any(is_secret)) {
            return Err(format!("{} has a nested message with a secret: keep it at the top", message.name()));
        }
        if message.field.iter().any(is_secret) {
            if message.field.iter().any(is_unknown_to_debug) {
                return Err(format!("{} has a secret beside what write_debug does not know", message.name()));
            }
            found.push(message.clone());
        }
    }
    Ok(found)
}

/// Fields whose Rust form takes more than `self.name`.
fn is_unknown_to_debug(field: &FieldDescriptorProto) -> bool {
    let several_enums = field.r#type() == Type::Enum && field.label() == Label::Repeated;
    let chosen = field.oneof_index.is_some() && !field.proto3_optional();
    several_enums || chosen || (is_secret(field) && field.label() == Label::Repeated)
}

/// Like the generated `Debug`, with `(secret)` in place of secrets that are set.
fn write_debug(code: &mut String, message: &DescriptorProto) -> Result<(), std::fmt::Error> {
    let name = message.name();
    writeln!(code, "impl ::core::fmt::Debug for {name} {{")?;
    writeln!(code, "fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {{")?;
    writeln!(code, "f.debug_struct({name:?})")?;
    for field in &message.field {
        let name = field.name();
        if is_secret(field) {
            let shown = format!(r#"if self.{name}.is_empty() {{ "\"\"" }} else {{ "(secret)" }}"#);
            writeln!(code, ".field({name:?}, &::core::format_args!(\"{{}}\", {shown}))")?;
        } else if field.r#type() == Type::Enum {
            writeln!(code, ".field({name:?}, &self.{name}())")?;
        } else {
            writeln!(code, ".field({name:?}, &self.{name})")?;
        }
    }
    writeln!(code, ".finish()\n}}\n}}")
}
