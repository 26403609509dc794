//! x86-64: decoding a kernel's code.

mod data;
mod sites;
mod uses;

pub(crate) use sites::site_len;
pub(crate) use uses::uses;

use crate::vmlinux::{Image, Symbol, SymbolId};
use iced_x86::{Decoder, DecoderOptions, Instruction};

/// The instructions of a symbol's code, from its entry to its end. None for a symbol without code in the file.
pub fn instructions(image: &Image, function: SymbolId) -> impl Iterator<Item = Instruction> + '_ {
    decoder_of(image, image.symbol(function)).into_iter().flatten()
}

/// The instructions in `len` bytes of code at `addr`.
pub fn instructions_at(
    image: &Image,
    addr: crate::address::Addr,
    len: u64,
) -> impl Iterator<Item = Instruction> + '_ {
    image.bytes(addr, len).map(|code| decoder(code, addr.0)).into_iter().flatten()
}

fn decoder_of<'a>(image: &'a Image, symbol: &Symbol) -> Option<Decoder<'a>> {
    Some(decoder(image.bytes(symbol.addr, symbol.size)?, symbol.addr.0))
}

fn decoder(code: &[u8], addr: u64) -> Decoder<'_> {
    Decoder::with_ip(64, code, addr, DecoderOptions::NONE)
}
