fn main() {
    println!("squall-node");
}
