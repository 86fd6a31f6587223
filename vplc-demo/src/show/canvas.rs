//! A grid of characters with colours, and dots of braille characters in it.

/// Colours of a terminal.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Colour {
    /// The terminal's own.
    #[default]
    Plain,
    /// Emphasis.
    Bold,
    /// In the background.
    Dim,
    /// Good.
    Green,
    /// To be looked at.
    Yellow,
    /// Bad.
    Red,
    /// Where things are.
    Cyan,
}

impl Colour {
    const fn code(self) -> &'static str {
        match self {
            Colour::Plain => "0",
            Colour::Bold => "0;1",
            Colour::Dim => "0;2",
            Colour::Green => "0;32",
            Colour::Yellow => "0;33",
            Colour::Red => "0;1;31",
            Colour::Cyan => "0;36",
        }
    }
}

/// First of the braille patterns: the eight low bits are dots.
const BRAILLE: u32 = 0x2800;

/// The grid.
#[derive(Clone, Debug)]
pub struct Canvas {
    width: usize,
    height: usize,
    cells: Vec<(char, Colour)>,
}

impl Canvas {
    /// All blank.
    #[must_use]
    pub fn new(width: usize, height: usize) -> Self {
        Canvas { width, height, cells: vec![(' ', Colour::Plain); width * height] }
    }

    /// Characters in a row.
    #[must_use]
    pub fn width(&self) -> usize {
        self.width
    }

    /// Writes a text; what lies outside is cut.
    pub fn text(&mut self, x: usize, y: usize, text: &str, colour: Colour) {
        for (at, character) in (x..).zip(text.chars()) {
            self.put(at, y, character, colour);
        }
    }

    fn put(&mut self, x: usize, y: usize, character: char, colour: Colour) {
        if x < self.width && y < self.height {
            self.cells[y * self.width + x] = (character, colour);
        }
    }

    /// Sets a dot; each character holds two by four of them. A dot in a character
    /// that is no braille pattern replaces it.
    pub fn dot(&mut self, x: usize, y: usize, colour: Colour) {
        const BITS: [[u32; 2]; 4] = [[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]];
        let (column, row) = (x / 2, y / 4);
        if column >= self.width || row >= self.height {
            return;
        }
        let (character, _) = self.cells[row * self.width + column];
        let dots = (character as u32).checked_sub(BRAILLE).filter(|dots| *dots < 256).unwrap_or(0);
        let dots = BRAILLE + (dots | BITS[y % 4][x % 2]);
        self.put(column, row, char::from_u32(dots).unwrap_or(' '), colour);
    }

    /// For a terminal: from its first row and column on.
    #[must_use]
    pub fn ansi(&self) -> String {
        let mut text = String::from("\x1b[H");
        let mut colour = None;
        for (y, row) in self.cells.chunks(self.width.max(1)).enumerate() {
            if y > 0 {
                text.push_str("\r\n");
            }
            for (character, wanted) in row {
                if colour != Some(*wanted) {
                    text.push_str(&format!("\x1b[{}m", wanted.code()));
                    colour = Some(*wanted);
                }
                text.push(*character);
            }
        }
        text.push_str("\x1b[0m\x1b[J");
        text
    }

    /// Without colours.
    #[cfg(test)]
    pub fn plain(&self) -> String {
        let rows = self.cells.chunks(self.width.max(1)).map(|row| row.iter().map(|(c, _)| *c).collect::<String>());
        rows.map(|row| row.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_outside_is_cut() {
        let mut canvas = Canvas::new(4, 1);
        canvas.text(2, 0, "abc", Colour::Plain);
        canvas.text(0, 5, "abc", Colour::Plain);
        canvas.dot(100, 100, Colour::Plain);
        assert_eq!(canvas.plain(), "  ab");
        assert!(Canvas::new(0, 0).ansi().contains("\x1b[H"));
    }

    #[test]
    fn dots_add_up() {
        let mut canvas = Canvas::new(1, 1);
        canvas.dot(0, 0, Colour::Plain);
        assert_eq!(canvas.plain(), "\u{2801}");
        canvas.dot(1, 3, Colour::Plain);
        assert_eq!(canvas.plain(), "\u{2881}");
    }

    #[test]
    fn colours_change_only_where_they_do() {
        let mut canvas = Canvas::new(3, 1);
        canvas.text(0, 0, "abc", Colour::Red);
        assert_eq!(canvas.ansi(), "\x1b[H\x1b[0;1;31mabc\x1b[0m\x1b[J");
    }
}
