//! What is wrong with a workload file, in words of its author: never those of the libraries that read it.
//!
//! The libraries say by an error's kind what they stumbled over; their texts speak to programmers and are not used. What
//! no row names gets a sentence that is true of every such mistake.

use serde_saphyr::budget::BudgetBreach;
use serde_saphyr::granit_parser::ErrorKind as Syntax;
use serde_saphyr::{Error, ExternalMessageSource};

use super::{DEPTH_MAX, EMPTY};

const LIST: &str = "must be a list: `- …`";
const MAPPING: &str = "must be a mapping: `key: value`";
const SINGLE: &str = "must be a single value, neither a list nor a mapping";
const NO_YAML: &str = "not YAML: is a quote, a bracket or an indentation wrong here?";
const TOO_MUCH: &str = "more nodes, aliases or text than any workload file needs";
const ENDS_EARLY: &str = "the file ends in the middle of something";
const STRAY_BRACKET: &str = "a closing bracket without its opening one";
const MISPLACED: &str = "this line does not belong here: is it indented like its neighbours, and does a list have `- `?";
const COLON: &str = "a `:` where none may stand; a text that holds `: ` must be in quotes";
const TAG: &str =
    "`!` begins a tag, which means nothing here; a text that begins with it must be in quotes";
const ANCHOR: &str =
    "`&` and `*` need a name that is known; a text that begins with one of them must be in quotes";
const DIRECTIVE: &str = "`%` begins a directive, which means nothing here; a text that begins with it must be in quotes";
const ESCAPE: &str = "an escape that does not exist in double quotes; write a backslash as `\\\\`, or use single quotes";
/// The only place where one of several forms may stand.
const READINESS: &str = "must be `{tcp: {}}` or `{http: {path: /health}}`";

/// Says what is wrong with this field.
pub(super) fn said(error: &Error, field: &str) -> String {
    let words = words(error);
    let is_form = field
        .rsplit_once("readiness")
        .is_some_and(|(_, below)| matches!(below, "" | ".tcp" | ".http") && words == MAPPING);
    if is_form { READINESS.to_owned() } else { words }
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "an enum of the library with sixty variants, many of which this file cannot cause"
)]
fn words(error: &Error) -> String {
    let words = match error.without_snippet() {
        Error::ExternalMessage { source, .. } => match source.as_ref() {
            ExternalMessageSource::Parser(error) => return syntax(error.kind()),
            _ => NO_YAML,
        },
        Error::AliasError { error, .. } => return self::words(error),
        Error::MultipleDocuments { .. } => "a second document; allowed: one",
        Error::Eof { .. } => EMPTY,
        Error::NullIntoString { .. } => "must not be empty",
        Error::Unexpected { expected, .. } => kind(expected),
        Error::SerdeInvalidType { expected, .. } => kind(expected),
        Error::SerdeUnknownField { expected, .. } => {
            return format!("unknown field; allowed: {}", expected.join(", "));
        }
        Error::SerdeMissingField { field, .. } => return format!("needs a field `{field}`"),
        Error::DuplicateMappingKey { key: Some(key), .. } => {
            return format!("the key {key} stands twice");
        }
        Error::DuplicateMappingKey { key: None, .. } => "a key stands twice",
        Error::SerdeUnknownVariant { .. }
        | Error::SerdeVariantId { .. }
        | Error::TaggedEnumMismatch { .. }
        | Error::UnexpectedValueForUnit { .. }
        | Error::UnexpectedValueForUnitEnumVariant { .. }
        | Error::ExpectedEmptyMappingForUnitStruct { .. }
        | Error::ExpectedStringKeyForExternallyTaggedEnum { .. }
        | Error::ExternallyTaggedEnumExpectedScalarOrMapping { .. }
        | Error::ExpectedMappingEndAfterEnumVariantValue { .. } => READINESS,
        Error::UnsupportedTag { .. }
        | Error::BinaryNotUtf8 { .. }
        | Error::InvalidBinaryBase64 { .. }
        | Error::TaggedScalarCannotDeserializeIntoString { .. }
        | Error::UnsupportedIncludeForm { .. } => TAG,
        Error::UnknownAnchor { .. } | Error::RecursiveReferencesRequireWeakTypes { .. } => ANCHOR,
        Error::MergeValueNotMapOrSeqOfMaps { .. } | Error::MergeKeyNotAllowed { .. } => {
            "`<<` takes a mapping, or a list of mappings"
        }
        Error::QuotingRequired { .. } => "must be in quotes",
        Error::IndentationError { .. } => MISPLACED,
        Error::FoldedBlockScalarMustIndentContent { .. } => {
            "the text below `>` or `|` must be indented"
        }
        Error::UnexpectedSequenceEnd { .. }
        | Error::UnexpectedMappingEnd { .. }
        | Error::ContainerEndMismatch { .. } => STRAY_BRACKET,
        Error::Budget {
            breach: BudgetBreach::Depth { .. },
            ..
        } => return too_deep(),
        Error::Budget { .. }
        | Error::AliasReplayCounterOverflow { .. }
        | Error::AliasReplayLimitExceeded { .. }
        | Error::AliasExpansionLimitExceeded { .. }
        | Error::AliasReplayStackDepthExceeded { .. } => TOO_MUCH,
        _ => NO_YAML,
    };
    words.to_owned()
}

fn too_deep() -> String {
    format!("nested deeper than the {DEPTH_MAX} levels that are allowed")
}

/// What should stand where something of another kind does.
fn kind(expected: &str) -> &'static str {
    if expected.contains("sequence") {
        LIST
    } else if expected.contains("mapping")
        || expected.contains("map")
        || expected.contains("struct")
    {
        MAPPING
    } else if expected.contains("scalar") || expected.contains("str") {
        SINGLE
    } else {
        NO_YAML
    }
}

/// What is wrong with the text before it means anything.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "an enum of the library that may grow, of which this file cannot cause all"
)]
fn syntax(kind: &Syntax) -> String {
    let words = match kind {
        Syntax::UnexpectedEofFlowSequence | Syntax::UnclosedFlowCollection { open: '[' } => {
            "a `[` without its `]`"
        }
        Syntax::UnexpectedEofFlowMapping
        | Syntax::UnexpectedEofImplicitFlowMapping
        | Syntax::UnclosedFlowCollection { .. } => "a `{` without its `}`",
        Syntax::UnexpectedEofBlockSequence
        | Syntax::UnexpectedEofBlockMapping
        | Syntax::UnexpectedEof => ENDS_EARLY,
        Syntax::MisplacedFlowCollectionEnd => STRAY_BRACKET,
        Syntax::MismatchedFlowCollectionEnd { open, close } => {
            return format!("`{open}` is closed by `{close}`");
        }
        Syntax::ExpectedFlowMappingSeparator => "a `,` or `}` must follow",
        Syntax::ExpectedFlowSequenceSeparator => "a `,` or `]` must follow",
        Syntax::TabNotAllowed
        | Syntax::TabInBlockIndentation
        | Syntax::TabInIndentation
        | Syntax::TabAtBlockScalarStart
        | Syntax::TabInPlainScalar => "a tab; allowed: blanks for indentation",
        Syntax::InvalidIndentation
        | Syntax::InvalidBlockScalarIndent
        | Syntax::InvalidFlowScalarIndent
        | Syntax::ExpectedBlockMappingKey
        | Syntax::ExpectedBlockSequenceEntry
        | Syntax::BlockSequenceEntryNotAllowed => MISPLACED,
        Syntax::SimpleKeyExpected | Syntax::InvalidSimpleKey => "a `:` must follow the key",
        Syntax::MappingKeyNotAllowed
        | Syntax::MappingValueNotAllowed
        | Syntax::InvalidColonPlacement
        | Syntax::InvalidMappingValueWhitespace
        | Syntax::FlowMappingValueAdjacentCollection => COLON,
        Syntax::UnclosedQuotedScalar
        | Syntax::DocumentIndicatorInQuotedScalar
        | Syntax::InvalidQuotedScalarIndent => {
            "a quote that is opened and not closed, or whose text is not indented"
        }
        Syntax::InvalidTrailingSingleQuotedScalar | Syntax::InvalidTrailingDoubleQuotedScalar => {
            "something stands behind the closing quote"
        }
        Syntax::UnknownQuotedScalarEscape
        | Syntax::InvalidQuotedScalarHexEscape
        | Syntax::InvalidLowSurrogateHexEscape
        | Syntax::InvalidLowSurrogate
        | Syntax::MissingLowSurrogate
        | Syntax::UnpairedLowSurrogate
        | Syntax::InvalidUnicodeEscape => ESCAPE,
        Syntax::UnexpectedCharacter { character } => {
            let shown = character.escape_default();
            return format!("a text must not begin with '{shown}'; put it in quotes");
        }
        Syntax::CommentNotSeparated | Syntax::CommentInterceptedScalar => {
            "a `#` begins a comment only after a blank; a text that holds one must be in quotes"
        }
        Syntax::BlockEntryInFlowCollection
        | Syntax::PlainScalarStartsWithDashFlowIndicator
        | Syntax::InvalidBlockEntryWhitespace => {
            "a `-` where none may stand; a text that begins with it must be in quotes"
        }
        Syntax::MissingAnchorOrAliasName | Syntax::AnchorCountOverflow | Syntax::UnknownAnchor => {
            ANCHOR
        }
        Syntax::UndeclaredTagHandle
        | Syntax::InvalidGlobalTagCharacter
        | Syntax::ExpectedTagBang
        | Syntax::InvalidTagTerminator
        | Syntax::MissingTagUri
        | Syntax::UnclosedVerbatimTag
        | Syntax::InvalidTagEscape
        | Syntax::InvalidTagUtf8LeadingByte
        | Syntax::InvalidTagUtf8TrailingByte
        | Syntax::InvalidTagUtf8 => TAG,
        Syntax::DuplicateVersionDirective
        | Syntax::UnsupportedYamlMajorVersion
        | Syntax::DuplicateTagDirective
        | Syntax::MissingDocumentEndBeforeDirective
        | Syntax::ExpectedDocumentStart
        | Syntax::ExpectedTagDirectiveBang
        | Syntax::InvalidDirectiveTerminator
        | Syntax::MissingYamlVersionSeparator
        | Syntax::MissingDirectiveName
        | Syntax::InvalidDirectiveName
        | Syntax::YamlVersionTooLong
        | Syntax::MissingYamlVersion
        | Syntax::InvalidTagDirectiveTerminator => DIRECTIVE,
        Syntax::RecursionLimitExceeded => return too_deep(),
        Syntax::BomInsideDocument => "a byte order mark; allowed: at the beginning of the file",
        Syntax::ZeroBlockScalarIndent | Syntax::InvalidBlockScalarHeader => {
            "behind `>` or `|` stands what may not stand there; the text begins on the next line"
        }
        _ => NO_YAML,
    };
    words.to_owned()
}

#[cfg(test)]
mod tests;
