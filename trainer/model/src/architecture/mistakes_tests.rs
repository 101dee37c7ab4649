//! What is told of files that cannot be used: each line is a change of a valid file, and what is said about it.

use super::plan::tests::{SMALL, model, refusal};

/// Each line is `what becomes this => what is said`; a line break is written `\n`.
#[track_caller]
fn check(script: &str) {
    for line in script.lines().filter(|line| !line.is_empty()) {
        let parts = line.split_once(" => ").and_then(|(change, said)| {
            let (from, to) = change.split_once(" -> ")?;
            Some((from, to.replace("\\n", "\n"), said))
        });
        let (from, to, said) = parts.expect(line);
        assert!(SMALL.contains(from), "the file has no {from}");
        let told = refusal(&model(&SMALL.replace(from, &to)));
        assert!(told.contains(said), "{line}\nis told as\n{told}");
    }
}

/// The same for the second layer of the file.
#[track_caller]
fn check_row(script: &str) {
    let lines = script.lines().filter(|line| !line.is_empty());
    let changes: Vec<String> = lines
        .map(|line| format!("[-1, 1, Conv, [32, 3, 4]] -> {line}"))
        .collect();
    check(&changes.join("\n"));
}

#[test]
fn mistakes_of_the_file_name_the_key_and_the_remedy() {
    check(
        r#"
backbone: -> - backbone:\n => it is not a YOLOv5 model file (nc, depth_multiple, width_multiple
depth_multiple -> depth_multiplier => unknown field `depth_multiplier`
nc: 80 -> nc: 0 => nc is 0: write a number of classes from 1 to 65535, or leave nc out
nc: 80 -> nc: 9223372036854775807 => nc is 9223372036854775807: write a number of classes from 1 to 65535
depth_multiple: 0.5 -> depth_multiple: -1 => depth_multiple is -1: write a number above 0 and at most 100
width_multiple: 0.5 -> width_multiple: a => width_multiple is "a": write a number
ch: 3 -> ch: 1 => ch is 1, but images have 3 channels: write 3 or leave ch out
nn.ReLU() -> nn.Swish() => activation is not usable: 'nn.Swish' is not an activation this program has: choose one of SiLU
nn.ReLU() -> 7 => activation is not usable: 7 is not a name: write for example nn.ReLU()
[[10, 13, 16, 30], [30, 61, 62, 45]] -> 17 => anchors is 17: write how many anchors of each level are to be made from the data set, 1 to 16, or their widths
[[10, 13, 16, 30], [30, 61, 62, 45]] -> 2.5 => anchors is 2.5: write how many anchors
[[10, 13, 16, 30], [30, 61, 62, 45]] -> [] => anchors is []: write a list for each of 1 to 5 levels
[10, 13, 16, 30] -> [10, 13, 16] => anchors has the level [10,13,16]: write 1 to 16 pairs of width and height
[10, 13, 16, 30] -> [10, 13, 16, 0] => above 0 and at most 8192 pixels
[10, 13, 16, 30] -> [10, 13] => anchors has 1 anchors in one level and 2 in another: give each level equally many
anchors: [[10, 13, 16, 30], [30, 61, 62, 45]] -> # none => there are no anchors: write the key anchors
head: -> # => head is missing: write a list of rows [from, number, module, arguments]
backbone: -> backbone: 3\nhead: => duplicate mapping key
  - [[2, 3], 1, Detect, [nc, anchors]] -> # none => head does not end with Detect: add a last row like
"#,
    );
}

#[test]
fn mistakes_of_a_layer_name_it_and_the_remedy() {
    check(
        r#"
[-1, 1, Conv, [32, 3, 2]] -> [-1, 1, Conv] => layer 0 (row 1 of backbone): it is [-1,1,"Conv"]: write [from, number, module, arguments]
[-1, 1, Conv, [32, 3, 2]] -> [a, 1, Conv, []] => layer 0 (row 1 of backbone, Conv): from is "a": write -1 for the layer before, the number of a layer
[-1, 1, Conv, [32, 3, 2]] -> [0, 1, Conv, [32]] => from is 0, but there is no layer before it: write -1 for the images
[-1, 1, Conv, [32, 3, 2]] -> [-1, 0, Conv, [32]] => number is 0: write how often, from 1 to 1000
[-1, 1, Conv, [32, 3, 2]] -> [-1, 1, 5, [32]] => module is 5: write its name, for example Conv
[-1, 1, Conv, [32, 3, 2]] -> [-1, 1, Conv, 32] => arguments is 32: write a list, [] if there are none
[-1, 1, Conv, [32, 3, 2]] -> [-1, 1, Konv, [32]] => layer 0 (row 1 of backbone, Konv): 'Konv' is not a module this program has: choose one of Conv, DWConv, Focus
[-1, 1, Conv, [64, 3, 2]] -> [7, 1, Conv, [64, 3, 2]] => layer 3 (row 1 of head, Conv): from is 7: write -1 for the layer before, or the number of an earlier layer, 0 to 2
[-1, 1, Conv, [64, 3, 2]] -> [[1, 2], 1, Conv, [64, 3, 2]] => from names 2 layers, but Conv takes one: put a Concat before it
[-1, 1, Conv, [64, 3, 2]] -> [[0, 2], 1, Concat, [1]] => layer 3 (row 1 of head, Concat): its inputs have 512x512 and 128x128 cells: they must have equally many
[-1, 1, Conv, [64, 3, 2]] -> [-1, 1, Concat, [2]] => argument 1 (dimension) is 2: write 1, the channels
[[2, 3], 1, Detect, -> [[2, 3, 1], 1, Detect, => layer 4 (row 2 of head, Detect): it has 3 levels, but anchors has 2: write one list for each
[[2, 3], 1, Detect, -> [[0, 1, 2, 3, 3, 3], 1, Detect, => from names 6 layers: name 1 to 5
[[2, 3], 1, Detect, -> [[2, 3], 4, Detect, => number is 2 after depth_multiple: write 1
[nc, anchors] -> [many, anchors] => argument 1 (nc) is 'many': write nc
[nc, anchors] -> [nc, [[1, 2], [3]]] => argument 2: anchors has the level [3]: write 1 to 16 pairs
[[2, 3], 1, Detect, [nc, anchors]] -> [2, 1, Detect, [nc, [[1, 2]]]] => layer 3 (row 1 of head, Conv): no later layer takes its output: name its number in a from, or remove it
  - [[2, 3] ->   - [[2, 3], 1, Detect, [nc, anchors]]\n  - [[2, 3] => layer 4 (row 2 of head, Detect): Detect must be the last layer
  - [[2, 3] ->   - [[2, 3], 1, Detect, [nc, anchors]]\n  - [-1, 1, Conv, [8]]\n  - [[2, 3] => it takes the predictions of layer 4: Detect must be the last layer
[32, 3, 4] -> [32, 3, 16]]\n  - [-1, 1, Conv, [32, 3, 16] => backbone has a layer of stride 1024: use fewer strides
"#,
    );
    let rows = "  - [-1, 1, nn.Identity, []]\n".repeat(500);
    let told = refusal(&model(&SMALL.replace("head:\n", &format!("head:\n{rows}"))));
    assert!(told.contains("head has more than 500 layers"), "{told}");
}

#[test]
fn mistakes_of_an_argument_name_it_and_the_remedy() {
    check_row(
        r"
[-1, 1, Conv, []] => layer 1 (row 2 of backbone, Conv): argument 1 (channels) is missing: write a whole number from 1 to 65536
[-1, 1, Conv, [32, 0]] => argument 2 (kernel) is 0: write a whole number from 1 to 99
[-1, 1, Conv, [32, [1, 2, 3]]] => argument 2 (kernel) is [1, 2, 3]: write one or two whole numbers
[-1, 1, Conv, [32, 3, x]] => argument 3 (stride) is 'x': write a whole number from 1 to 99
[-1, 1, Conv, [32, 3, 4, None, 5]] => argument 5 (groups) is 5, which does not divide the 16 channels in and 16 out: write a common divisor, or 1
[-1, 1, Conv, [32, 3, 4, None, 1, 1, nn.Foo()]] => argument 7 (activation): 'nn.Foo' is not an activation
[-1, 1, Conv, [32, 3, 4, None, 1, 1, 3]] => argument 7 (activation) is 3: write True, False or a name like nn.ReLU()
[-1, 1, Conv, [32, 3, 4, 1, 1, 1, True, 9]] => it has 8 arguments, but takes at most 7: write [channels, kernel = 1,
[-1, 4, Conv, [64, 3, 4]] => it is repeated 2 times, but its output cannot be its input (it takes 16 channels, but its input has 32): write number 1
[-1, 1, Conv, [32, 3, 1, 0]] => which is no whole number of pixels per cell: choose paddings
[-1, 1, Conv, [65536, 99, 4]] => parameters: write fewer channels, at most 1000000000 are possible
[-1, 1, C3, [32, Yes!]] => argument 2 (shortcut) is 'Yes!': write True or False
[-1, 1, C3, [32, True, 1, 0]] => argument 4 (expansion) is 0: write a number above 0 and at most 16
[-1, 1, C3, [32, True, 1, 0.01]] => argument 4 (expansion) is 0.01, which makes 0 channels inside
[-1, 1, C3TR, [8, True, 1, 0.75]] => it has 6 channels inside, which 4 heads cannot share
[-1, 1, C3Ghost, [8, True, 1, 0.75]] => it has 6 channels inside, which ghosts halve twice
[-1, 1, GhostBottleneck, [64]] => it adds 16 channels of 512x512 cells to 32 of 512x512: write as many channels out as in, or stride 2
[-1, 1, GhostBottleneck, [32, 3, 4]] => argument 3 (stride) is 4: write a whole number from 1 to 2
[-1, 1, SPP, [32, [4]]] => argument 2 (windows) is [4]: write 1 to 8 odd numbers
[-1, 1, SPPF, [32, 4]] => argument 2 (window) is 4: write an odd number
[-1, 1, CrossConv, [32, 3, 2, 1, 1.0, True]] => it adds its input of 512x512 cells to its output of 256x256: write False for shortcut
[-1, 1, nn.Upsample, [8, 2, nearest]] => argument 1 (size) is 8: write None, and the factor after it
[-1, 1, nn.Upsample, [None, 0.5, nearest]] => argument 2 (factor) is 0.5: write a whole number from 1 to 16
[-1, 1, nn.Upsample, [None, 2, bicubic]] => argument 3 (mode) is 'bicubic': write 'nearest' or 'bilinear'
[-1, 3, nn.Upsample, [None, 8, nearest]] => more than the 65536 channels and 8192 rows that are possible: use smaller factors
[-1, 1, nn.MaxPool2d, [3, 2, 2]] => argument 3 (padding) is 2: write at most half of the kernel
[-1, 1, nn.AvgPool2d, [99, 1]] => which is no whole number of pixels per cell
[-1, 1, nn.AvgPool2d, [7, 99]]\n  - [-1, 1, nn.MaxPool2d, [99]] => its input of 6x6 cells is smaller than its kernel of 99x99: use a smaller kernel
[-1, 1, nn.ReLU, [0.1]] => nn.ReLU takes no number, but 0.1 is given: remove it
[-1, 1, nn.ELU, [a]] => argument 1 (slope) is 'a': write at most one number, for example [0.1]
[-1, 1, Contract, [3]] => its input has 512x512 cells, which are no whole squares of 3
[-1, 1, Expand, [3]] => its input has 16 channels, which cannot be divided by 9
[-1, 1000, C3, [64]]\n  - [-1, 1000, C3, [64]]\n  - [-1, 1000, C3, [64]]\n  - [-1, 1000, C3, [64]]\n  - [-1, 1000, C3, [64]] => times: write smaller numbers, at most 2000 together
",
    );
}
