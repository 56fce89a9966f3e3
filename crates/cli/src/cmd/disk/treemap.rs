//! The survey as a page: nested rectangles whose areas are bytes, coloured by who may free them.
//!
//! One file with everything in it: no script of others, no font, no image, nothing is fetched. It says so itself, in a
//! policy that forbids the browser to. Rectangles are laid out here (squarified, after Bruls, Huizing and van Wijk), so
//! that the page works without scripts; the one script in it only makes a directory fill the page.

use std::fmt::Write as _;
use std::path::Path;

use nagi_guard::{Class, NodeId, Survey, Tree};

use super::body::shown;
use crate::output::words;

/// Smaller rectangles than this part of the whole are drawn as one.
const PARTS: u64 = 2000;
const DEPTH_MAX: usize = 24;
/// The area in which rectangles lie, in its own units: percent with three digits.
const SIDE: f64 = 100.0;

const STYLE: &str = "\
:root{color-scheme:light dark}body{margin:0;font:13px system-ui,sans-serif;background:Canvas;color:CanvasText}
header{padding:.6rem 1rem}h1{font-size:1rem;margin:0 0 .3rem}h2{font-size:.9rem;margin:.8rem 1rem .2rem}
.key span{display:inline-block;margin-right:1rem}.key i{display:inline-block;width:.8em;height:.8em;margin-right:.3em}
.map{position:relative;height:80vh;margin:0 1rem 1rem}
.d{position:absolute;box-sizing:border-box;border:1px solid Canvas;overflow:hidden;cursor:zoom-in}
.d>b{display:block;font-weight:500;white-space:nowrap;overflow:hidden;text-overflow:ellipsis;padding:0 .25em;height:1.3em;color:#111}
.d>div.in{position:absolute;inset:1.3em 2px 2px 2px}
.nagi{background:#8fce8f}.owner{background:#8fbfe8}.human{background:#e0c48a}.unknown{background:#b9b9b9}.hidden{background:#e39a9a}
.whole{position:fixed!important;left:0!important;top:0!important;width:100%!important;height:100%!important;z-index:9;cursor:zoom-out}";
const SCRIPT: &str = "\
document.addEventListener('click',e=>{const d=e.target.closest('.d');if(!d)return;\
const w=document.querySelector('.whole');if(w)w.classList.remove('whole');if(w!==d)d.classList.add('whole')});\
document.addEventListener('keydown',e=>{if(e.key==='Escape')document.querySelector('.whole')?.classList.remove('whole')});";

/// A rectangle, in percent of the one around it.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Area {
    left: f64,
    top: f64,
    width: f64,
    height: f64,
}

/// The whole page.
pub(super) fn page(survey: &Survey) -> String {
    let mut page =
        String::from("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n");
    page.push_str(
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'\">\n",
    );
    page.push_str(
        "<meta name=\"viewport\" content=\"width=device-width\"><title>nagi disk</title>\n",
    );
    // Writing to a string cannot fail, here and below.
    write!(
        page,
        "<style>{STYLE}</style></head><body><header><h1>nagi disk</h1><div class=\"key\">"
    )
    .unwrap_or(());
    for (class, meaning) in [
        ("nagi", "Nagi may free it"),
        ("owner", "only its owner may"),
        ("human", "a person must decide"),
        ("unknown", "nobody known owns it"),
        ("hidden", "hidden under a mount"),
    ] {
        write!(page, "<span><i class=\"{class}\"></i>{meaning}</span>").unwrap_or(());
    }
    page.push_str("</div></header>\n");
    for place in &survey.places {
        let floor = place.tree.total().bytes() / PARTS;
        for start in place.tree.starts() {
            let size = words::bytes(place.tree.sum(start).bytes());
            let name = escaped(&shown(&place.tree.path(start)));
            write!(page, "<h2>{name}: {size}</h2><div class=\"map\">").unwrap_or(());
            children(&place.tree, start, floor, DEPTH_MAX, &mut page);
            page.push_str("</div>\n");
        }
    }
    writeln!(page, "<script>{SCRIPT}</script></body></html>").unwrap_or(());
    page
}

/// The directories in one, and a rectangle for everything else in it.
fn children(tree: &Tree, id: NodeId, floor: u64, depth: usize, page: &mut String) {
    let all = tree.largest_below(id);
    let large: Vec<NodeId> = all
        .into_iter()
        .filter(|child| depth > 0 && tree.sum(*child).bytes() > floor)
        .collect();
    let shown: u64 = large.iter().map(|child| tree.sum(*child).bytes()).sum();
    let rest = tree.sum(id).bytes().saturating_sub(shown);
    let mut sizes: Vec<u64> = large.iter().map(|child| tree.sum(*child).bytes()).collect();
    // It is the last, whatever its size: the order of areas is that of names in the list.
    if rest > 0 {
        sizes.push(rest);
    }
    for (number, area) in squarify(&sizes).into_iter().enumerate() {
        if let Some(child) = large.get(number) {
            directory(tree, *child, area, floor, depth - 1, page);
        } else {
            let title = format!("files and small directories: {}", words::bytes(rest));
            opening(area, class(tree, id), &title, page);
            page.push_str("<b>files</b></div>");
        }
    }
}

fn directory(tree: &Tree, id: NodeId, area: Area, floor: u64, depth: usize, page: &mut String) {
    let sum = tree.sum(id);
    let size = words::bytes(sum.bytes());
    let path = shown(&tree.path(id));
    let title = format!(
        "{path}: {size}, {} inodes, {}",
        sum.inodes,
        tree.owner(id).name()
    );
    opening(area, class(tree, id), &title, page);
    let name = escaped(&shown(Path::new(&tree.name(id))));
    write!(page, "<b>{name} {size}</b><div class=\"in\">").unwrap_or(());
    children(tree, id, floor, depth, page);
    page.push_str("</div></div>");
}

fn opening(area: Area, class: &str, title: &str, page: &mut String) {
    let Area {
        left,
        top,
        width,
        height,
    } = area;
    let title = escaped(title);
    write!(
        page,
        "<div class=\"d {class}\" style=\"left:{left:.3}%;top:{top:.3}%;width:{width:.3}%;height:{height:.3}%\" title=\"{title}\">"
    )
    .unwrap_or(());
}

fn class(tree: &Tree, id: NodeId) -> &'static str {
    if tree.is_hidden(id) {
        return "hidden";
    }
    match tree.owner(id).class() {
        Class::Nagi => "nagi",
        Class::Owner => "owner",
        Class::Human => "human",
        Class::Unknown => "unknown",
    }
}

/// Text of others inside a page.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in words::clean(text).chars() {
        match character {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            other => safe.push(other),
        }
    }
    safe
}

/// Rectangles for sizes, in their order, as square as that allows: rows are filled along the shorter side of what is left
/// as long as that makes the worst of the row better.
fn squarify(sizes: &[u64]) -> Vec<Area> {
    let total: f64 = sizes.iter().copied().map(float).sum();
    let mut areas = Vec::new();
    let mut left = Area {
        left: 0.0,
        top: 0.0,
        width: SIDE,
        height: SIDE,
    };
    let scaled: Vec<f64> = sizes
        .iter()
        .map(|size| float(*size) / total.max(1.0) * SIDE * SIDE)
        .collect();
    let mut rest = scaled.as_slice();
    while !rest.is_empty() {
        let side = left.width.min(left.height);
        let mut count = 1;
        while count < rest.len() && worst(rest, count + 1, side) <= worst(rest, count, side) {
            count += 1;
        }
        let (row, behind) = rest.split_at(count);
        left = lay(row, left, &mut areas);
        rest = behind;
    }
    areas
}

/// Lays one row along the shorter side; gives what is left.
fn lay(row: &[f64], left: Area, areas: &mut Vec<Area>) -> Area {
    let sum: f64 = row.iter().sum();
    let stands = left.width >= left.height;
    let long = if stands { left.height } else { left.width };
    let thick = if long > 0.0 { sum / long } else { 0.0 };
    let mut at = 0.0;
    for size in row {
        let part = if sum > 0.0 { size / sum * long } else { 0.0 };
        areas.push(if stands {
            Area {
                left: left.left,
                top: left.top + at,
                width: thick,
                height: part,
            }
        } else {
            Area {
                left: left.left + at,
                top: left.top,
                width: part,
                height: thick,
            }
        });
        at += part;
    }
    if stands {
        Area {
            left: left.left + thick,
            width: (left.width - thick).max(0.0),
            ..left
        }
    } else {
        Area {
            top: left.top + thick,
            height: (left.height - thick).max(0.0),
            ..left
        }
    }
}

/// The worst ratio of sides in a row of the first `count` sizes.
fn worst(sizes: &[f64], count: usize, side: f64) -> f64 {
    let row = sizes.get(..count).unwrap_or_default();
    let sum: f64 = row.iter().sum();
    if sum <= 0.0 || side <= 0.0 {
        return f64::INFINITY;
    }
    let ratios = row.iter().map(|size| {
        let ratio = side * side * size / (sum * sum);
        ratio.max(1.0 / ratio.max(f64::MIN_POSITIVE))
    });
    ratios.fold(0.0, f64::max)
}

/// For shapes; the last of 16 digits does not matter.
fn float(number: u64) -> f64 {
    let (high, low) = (number >> 32, number & u64::from(u32::MAX));
    let part = |half: u64| f64::from(u32::try_from(half).unwrap_or(u32::MAX));
    part(high) * 4_294_967_296.0 + part(low)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(area: &Area) -> f64 {
        area.width * area.height
    }

    #[test]
    fn areas_are_in_proportion_fill_the_square_and_do_not_overlap() {
        let sizes = [600, 300, 200, 200, 100, 50, 1, 0];
        let areas = squarify(&sizes);
        assert_eq!(areas.len(), sizes.len());
        let total: f64 = areas.iter().map(size).sum();
        assert!((total - SIDE * SIDE).abs() < 1e-6, "{total}");
        for (number, (one, bytes)) in areas.iter().zip(sizes).enumerate() {
            assert!((size(one) - float(bytes) / 1451.0 * SIDE * SIDE).abs() < 1e-6);
            assert!(one.left + one.width <= SIDE + 1e-6 && one.top + one.height <= SIDE + 1e-6);
            for other in &areas[..number] {
                let apart = |a: f64, b: f64, c: f64, d: f64| a + b <= c + 1e-6 || c + d <= a + 1e-6;
                assert!(
                    apart(one.left, one.width, other.left, other.width)
                        || apart(one.top, one.height, other.top, other.height)
                );
            }
        }
        assert_eq!(squarify(&[]), []);
        assert_eq!(squarify(&[0]).len(), 1);
    }

    #[test]
    fn equal_sizes_are_nearly_square() {
        for area in squarify(&[5; 9]) {
            let ratio = area.width / area.height;
            assert!((0.5..=2.0).contains(&ratio), "{area:?}");
        }
    }

    #[test]
    fn names_of_others_are_text_and_nothing_else() {
        assert_eq!(
            escaped("<script>alert('x')</script>\"&\n"),
            "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;&quot;&amp; "
        );
    }

    #[test]
    fn numbers_keep_their_size_as_fractions() {
        for number in [0, 1, 1 << 32, (1 << 50) + 1] {
            assert!((float(number) - format!("{number}").parse::<f64>().unwrap()).abs() < 1.0);
        }
    }
}
