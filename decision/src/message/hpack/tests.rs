use super::*;
use proptest::prelude::*;

fn bytes(hex: &str) -> Vec<u8> {
    let hex: String = hex.split_whitespace().collect();
    (0..hex.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex"))
        .collect()
}

/// RFC 7541 appendices C.3 and C.4: three requests each, and the size of the table after each.
#[test]
fn the_examples_of_the_rfc() {
    let plain = [
        "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
        "8286 84be 5808 6e6f 2d63 6163 6865",
        "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
    ];
    let huffman = [
        "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
        "8286 84be 5886 a8eb 1064 9cbf",
        "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
    ];
    for blocks in [plain, huffman] {
        let mut watch = PathWatch::new(DEFAULT_TABLE_BYTES);
        for (block, size) in blocks.iter().zip([57, 110, 164]) {
            assert_eq!(watch.block(&bytes(block)), Ok(()));
            assert_eq!(watch.bytes, size);
        }
    }
}

fn string(text: &[u8]) -> Vec<u8> {
    assert!(text.len() < 127);
    [&[text.len() as u8][..], text].concat()
}

#[test]
fn a_hash_sign_in_a_path_is_seen_in_every_representation() {
    let hash = string(b"/a#b");
    let huffman_hash = {
        // "/#": 011000 111111111010, padded.
        let coded = [0b0110_0011, 0b1111_1110, 0b1011_1111];
        [&[0x80 | 3][..], &coded].concat()
    };
    for value in [hash, huffman_hash] {
        for name in [
            vec![0x44],
            vec![0x45],
            vec![0x04],
            vec![0x14],
            [vec![0x40], string(b":path")].concat(),
            [vec![0x00], vec![0x84], PATH_HUFFMAN.to_vec()].concat(),
        ] {
            let block = [name, value.clone()].concat();
            assert_eq!(
                PathWatch::new(4096).block(&block),
                Err(BlockFault::Fragment),
                "{block:x?}"
            );
        }
        // By the name of a dynamic entry.
        let mut watch = PathWatch::new(4096);
        assert_eq!(watch.block(&[vec![0x44], string(b"/a")].concat()), Ok(()));
        assert_eq!(
            watch.block(&[vec![0x7e], value.clone()].concat()),
            Err(BlockFault::Fragment)
        );
        // Elsewhere it is harmless.
        assert_eq!(PathWatch::new(4096).block(&[vec![0x60], value].concat()), Ok(()));
    }
}

#[test]
fn what_is_no_hpack_is_refused() {
    for block in [
        "80",
        "be",
        "ff",
        "ff ff ff ff ff ff",
        "44",
        "44 05 2f",
        "44 82 ff",
        "44 81 00",
        "44 84 ff ff ff ff",
        "3f e2 1f",
        "40 01",
    ] {
        assert_eq!(
            PathWatch::new(4096).block(&bytes(block)),
            Err(BlockFault::Compression),
            "{block}"
        );
    }
}

#[test]
fn the_table_stays_within_its_size() {
    let mut watch = PathWatch::new(100);
    for n in 0..100_u8 {
        let field = [
            vec![0x40],
            string(&vec![b'a'; usize::from(n % 40)]),
            string(b"value"),
        ]
        .concat();
        assert_eq!(watch.block(&field), Ok(()));
        assert!(watch.bytes <= 100 && watch.entries.len() <= 3);
    }
    assert_eq!(watch.block(&[0x20]), Ok(()));
    assert_eq!((watch.bytes, watch.entries.len()), (0, 0));
}

proptest! {
    #[test]
    fn no_block_makes_it_panic(blocks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..60), 1..6)) {
        let mut watch = PathWatch::new(200);
        for block in blocks {
            let _ = watch.block(&block);
            prop_assert!(watch.bytes <= 200);
            prop_assert_eq!(watch.bytes, watch.entries.iter().map(|entry| entry.bytes).sum::<usize>());
        }
    }
}
