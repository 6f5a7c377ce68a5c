//! Links into the browser client, and their QR codes in a terminal.

use std::io::Write;

use qrcodegen::{QrCode, QrCodeEcc};
use vestnik::config::{Options, WebOrigin};

use super::Outcome;
use super::failure::Failure;

/// Options for printing a code.
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Print a link into the browser client instead of the code
    #[arg(long)]
    link: bool,

    /// The address of the browser client, with which links begin
    #[arg(long, value_name = "URL", env = "VESTNIK_PUBLIC_URL", hide_env = true)]
    public_url: Option<WebOrigin>,
}

impl Arguments {
    /// The text to print: the code, or the link with the `fragment` of it.
    pub(super) fn text(
        &self,
        code: String,
        fragment: impl FnOnce(&str) -> String,
        options: &Options,
    ) -> Result<String, Failure> {
        if !self.link {
            return Ok(code);
        }
        let url = self.public_url.as_ref().or(options.public_url.as_ref());
        let Some(url) = url else {
            let words = "a link needs the address of the browser client: set public-url, such as \
                         https://chat.example.org";
            return Err(Failure::Usage(words.to_owned()));
        };
        Ok(format!("{url}/#{}", fragment(&code)))
    }
}

/// Width of the quiet zone of a QR code, in modules.
const QUIET_MODULES: i32 = 4;

/// Writes a text as a QR code of half blocks, dark on light whatever the colours of the terminal.
pub(super) fn write_qr(out: &mut dyn Write, text: &str) -> Outcome {
    for row in qr_rows(text, QUIET_MODULES)? {
        writeln!(out, "{}", paper(&row))?;
    }
    Ok(())
}

/// A row of a QR code in black on white.
pub(super) fn paper(row: &str) -> String {
    format!("\x1b[30;107m{row}\x1b[0m")
}

/// A text as a QR code: rows of half blocks, to be shown dark on light, with `quiet` modules around
/// it.
pub(super) fn qr_rows(text: &str, quiet: i32) -> Result<Vec<String>, Failure> {
    let code = QrCode::encode_text(text, QrCodeEcc::Medium)
        .map_err(|_| Failure::new("the link is too long for a QR code: leave out --qr"))?;
    let all = || -quiet..code.size() + quiet;
    // One character shows two modules, one above the other.
    let block = |x, y| match (code.get_module(x, y), code.get_module(x, y + 1)) {
        (true, true) => '█',
        (true, false) => '▀',
        (false, true) => '▄',
        (false, false) => ' ',
    };
    Ok(all().step_by(2).map(|y| all().map(|x| block(x, y)).collect()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_qr_code_is_square_and_has_a_quiet_zone() {
        let mut out = Vec::new();
        write_qr(&mut out, "https://chat.example.org/#invite=0123-4567-89ab-cdef-ghjk").unwrap();
        let text = String::from_utf8(out).unwrap();
        let lines: Vec<&str> = text
            .lines()
            .map(|line| line.trim_start_matches("\x1b[30;107m").trim_end_matches("\x1b[0m"))
            .collect();
        let width = lines[0].chars().count();
        assert!(lines.iter().all(|line| line.chars().count() == width));
        assert_eq!(lines.len(), width.div_ceil(2));
        assert!(lines[..2].iter().all(|line| line.trim().is_empty()));
        assert!(lines[2].starts_with("    █▀▀▀▀▀█"), "the corner that cameras look for");
    }
}
