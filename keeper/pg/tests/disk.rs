//! R13's probe of the disk. One that hangs or is full takes a file system of its own: `tests/e2e/unfit.rs`.

use stolon::task::clock;

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_takes_a_write_is_fit_and_nothing_is_left_on_it() {
    let node = Node::copied("a");
    let before = fs::read_dir(node.instance.data_dir()).unwrap().count();
    let mut disk = DiskProbe::new(node.instance.clone());
    for _ in 0..2 {
        let asked = clock::now();
        assert!(within("a write", disk.write(PATIENCE)).await.unwrap() >= asked);
    }
    assert_eq!(fs::read_dir(node.instance.data_dir()).unwrap().count(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_takes_too_long_is_told_and_the_next_call_waits_for_the_same_one() {
    let node = Node::copied("a");
    let mut disk = DiskProbe::new(node.instance.clone());
    let (asked, hung) = within("a write that is not done at once", async {
        loop {
            let asked = clock::now();
            if let Err(hung) = disk.write(Duration::ZERO).await {
                break (asked, hung.to_string());
            }
        }
    })
    .await;
    assert!(hung.contains("its disk hangs") && hung.contains("postgres") && !hung.contains('\n'), "{hung}");
    let told = clock::now();
    let began = within("the write", disk.write(PATIENCE)).await.unwrap();
    assert!(asked <= began && began <= told, "begun by the first call");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_names_the_directory() {
    let node = Node::empty("a");
    let error = DiskProbe::new(node.instance.clone()).write(PATIENCE).await.unwrap_err().to_string();
    assert!(error.contains("postgres does not take a write") && !error.contains('\n'), "{error}");
}
