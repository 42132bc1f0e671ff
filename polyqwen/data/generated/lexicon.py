"""The words of the generated sentences: five slots of concepts, each said in three languages.

A concept has two surface forms per language, so that equal meaning need not be equal wording. One
line of a table is one concept: ``en | vi | zh``, forms parted by ``/``. English verbs carry their
participle after a colon (``buys:bought``); the other languages need none.
"""

from typing import NamedTuple

LANGUAGES = ("en", "vi", "zh")

Concept = dict[str, tuple[str, ...]]  # language → surface forms


class Meaning(NamedTuple):
    """What a sentence says: the index of a concept in each slot."""

    subject: int
    action: int
    object: int
    colour: int
    place: int


def _table(lines: str) -> tuple[Concept, ...]:
    concepts = []
    for line in lines.strip().splitlines():
        cells = [tuple(form.strip() for form in cell.split("/")) for cell in line.split("|")]
        concepts.append(dict(zip(LANGUAGES, cells, strict=True)))
    return tuple(concepts)


SUBJECTS = _table("""
the farmer / the grower           | bác nông dân / người làm ruộng | 农民 / 庄稼人
the doctor / the physician        | bác sĩ / thầy thuốc            | 医生 / 大夫
the teacher / the schoolmaster    | giáo viên / thầy giáo          | 老师 / 教员
the child / the kid               | đứa trẻ / em bé                | 孩子 / 小朋友
the soldier / the trooper         | người lính / chú bộ đội        | 士兵 / 战士
the singer / the vocalist         | ca sĩ / người hát rong         | 歌手 / 演唱者
the cook / the chef               | đầu bếp / người nấu ăn         | 厨师 / 做饭的人
the driver / the chauffeur        | tài xế / bác lái xe            | 司机 / 开车的人
the thief / the robber            | tên trộm / kẻ cắp              | 小偷 / 盗贼
the grandmother / the old lady    | bà cụ / bà ngoại               | 奶奶 / 老太太
""")

# Neighbouring lines are opposites: `opposite` relies on it.
ACTIONS = _table("""
buys:bought / purchases:purchased   | mua / sắm            | 买 / 购买
sells:sold / hawks:hawked           | bán / rao bán        | 卖 / 出售
hides:hidden / conceals:concealed   | giấu / cất giữ       | 藏 / 隐匿
finds:found / discovers:discovered  | tìm thấy / phát hiện | 找到 / 发现
pushes:pushed / shoves:shoved       | đẩy / xô             | 推 / 推动
pulls:pulled / drags:dragged        | kéo / lôi            | 拉 / 拖
repairs:repaired / fixes:fixed      | sửa / tu bổ          | 修理 / 维修
breaks:broken / smashes:smashed     | làm hỏng / đập vỡ    | 弄坏 / 打破
throws:thrown / tosses:tossed       | ném / quăng          | 扔 / 抛
catches:caught / grabs:grabbed      | bắt lấy / chộp       | 接住 / 抓住
""")

OBJECTS = _table("""
chair / seat          | cái ghế / chỗ ngồi             | 椅子 / 座椅
ball / sphere         | quả bóng / trái banh           | 球 / 圆球
lamp / lantern        | cái đèn / ngọn đèn             | 灯 / 灯笼
box / crate           | cái hộp / chiếc thùng          | 盒子 / 箱子
bicycle / bike        | xe đạp / chiếc xe hai bánh     | 自行车 / 单车
umbrella / parasol    | cái ô / chiếc dù               | 雨伞 / 阳伞
table / desk          | cái bàn / mặt bàn              | 桌子 / 台桌
basket / hamper       | cái giỏ / chiếc rổ             | 篮子 / 竹筐
ladder / stepladder   | cái thang / chiếc thang tre    | 梯子 / 爬梯
hat / cap             | cái mũ / chiếc nón             | 帽子 / 头巾
""")

COLOURS = _table("""
red / crimson    | đỏ / đỏ thắm             | 红色的 / 鲜红的
blue / azure     | xanh dương / xanh lam    | 蓝色的 / 湛蓝的
green / emerald  | xanh lá cây / xanh lục   | 绿色的 / 翠绿的
yellow / golden  | vàng / vàng tươi         | 黄色的 / 金黄的
white / snowy    | trắng / trắng tinh       | 白色的 / 雪白的
black / ebony    | đen / đen tuyền          | 黑色的 / 乌黑的
brown / chestnut | nâu / nâu sẫm            | 棕色的 / 褐色的
purple / violet  | tím / tím biếc           | 紫色的 / 深紫的
grey / silver    | xám / xám bạc            | 灰色的 / 银灰的
pink / rosy      | hồng / hồng phấn         | 粉色的 / 粉红的
""")

PLACES = _table("""
at the market / in the bazaar         | ở chợ / ngoài phiên chợ         | 在市场 / 在集市上
in the park / in the public garden    | trong công viên / ở vườn hoa    | 在公园里 / 在花园里
by the river / on the bank            | bên sông / cạnh dòng nước       | 在河边 / 在水岸上
at the station / on the platform      | ở nhà ga / tại sân ga           | 在车站 / 在站台上
in the kitchen / by the stove         | trong bếp / cạnh lò             | 在厨房里 / 在灶台边
on the beach / by the sea             | trên bãi cát / bên bờ biển      | 在海滩上 / 在海边
in the forest / among the trees       | trong rừng / giữa đám cây       | 在森林里 / 在树林中
in the street / on the road           | ngoài đường / trên phố          | 在街上 / 在马路上
at the temple / inside the pagoda     | ở chùa / trong đền              | 在寺庙里 / 在佛塔下
on the hill / up the mountain         | trên đồi / ở sườn núi           | 在山上 / 在高坡上
""")

SLOTS: dict[str, tuple[Concept, ...]] = {
    "subject": SUBJECTS,
    "action": ACTIONS,
    "object": OBJECTS,
    "colour": COLOURS,
    "place": PLACES,
}
SIZES = tuple(len(concepts) for concepts in SLOTS.values())
FORMS = 2  # surface forms of a concept in each language


def opposite(meaning: Meaning) -> Meaning:
    """The same scene with the opposite action (buys ↔ sells, hides ↔ finds, ...)."""
    return meaning._replace(action=meaning.action ^ 1)
