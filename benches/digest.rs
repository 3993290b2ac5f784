//! Block hashing and the merging of subtrees, beside `blake3::Hasher` over the same bytes.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use wsferry::protocol::{BLOCK, BlockHasher, BlockHashes, DigestTree, Geometry};

const SIZE: u64 = 32 * BLOCK;

fn hash_blocks(bytes: &[u8], piece: usize) -> Vec<BlockHashes> {
    let geometry = Geometry::new(bytes.len() as u64).expect("it is within the limit");
    let blocks = (0..).zip(bytes.chunks(BLOCK as usize)).map(|(block, bytes)| {
        let mut hasher = BlockHasher::new(geometry, block);
        bytes.chunks(piece).for_each(|piece| hasher.update(piece));
        hasher.finish()
    });
    blocks.collect()
}

fn merge(size: u64, blocks: &[BlockHashes]) -> String {
    let mut tree = DigestTree::new(Geometry::new(size).expect("it is within the limit"));
    (0..).zip(blocks).for_each(|(block, hashes)| tree.insert(block, hashes));
    tree.digest().expect("every block is there").to_string()
}

fn digest(c: &mut Criterion) {
    let mut bytes = vec![0; SIZE as usize];
    fastrand::Rng::with_seed(5).fill(&mut bytes);
    let expected = blake3::hash(&bytes).to_string();

    let mut group = c.benchmark_group("digest");
    group.sample_size(20).throughput(Throughput::Bytes(SIZE));
    group.bench_function("blake3::Hasher, the whole file at once", |b| {
        b.iter(|| assert_eq!(blake3::Hasher::new().update(&bytes).finalize().to_string(), expected));
    });
    // By the pieces that chunks come in: 24,546 bytes is what a 32 KiB frame limit allows.
    for piece in [24_546, 48 << 10, 576 << 10, BLOCK as usize] {
        group.bench_function(BenchmarkId::new("blake3::Hasher, by pieces", piece), |b| {
            b.iter(|| {
                let mut hasher = blake3::Hasher::new();
                bytes.chunks(piece).for_each(|piece| {
                    hasher.update(piece);
                });
                assert_eq!(hasher.finalize().to_string(), expected);
            });
        });
        group.bench_function(BenchmarkId::new("blocks and their merging", piece), |b| {
            b.iter(|| assert_eq!(merge(SIZE, &hash_blocks(&bytes, piece)), expected));
        });
    }
    group.finish();

    // The merging alone: what a file's digest costs once its blocks are hashed, a terabyte in the last row.
    let mut group = c.benchmark_group("merge");
    let blocks = hash_blocks(&bytes, BLOCK as usize);
    assert_eq!(merge(SIZE, &blocks), expected);
    for count in [32, 1024, 333_333] {
        let size = count * BLOCK;
        let blocks: Vec<BlockHashes> = blocks.iter().cycle().take(count as usize).cloned().collect();
        group.throughput(Throughput::Bytes(size)).sample_size(10);
        group.bench_function(BenchmarkId::new("blocks", count), |b| b.iter(|| merge(size, &blocks)));
    }
    group.finish();
}

criterion_group!(benches, digest);
criterion_main!(benches);
