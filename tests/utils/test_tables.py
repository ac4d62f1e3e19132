from lightning_recipes.utils.tables import rows_table


def test_columns_of_dashes_are_left_out():
    table = rows_table(
        ["layer", "std", "dead", ""], [["a", "1", "–", "ok"], ["b", "2", "–", "ok"]], title="t"
    )
    assert [column.header for column in table.columns] == ["layer", "std", ""]
    assert table.row_count == 2
